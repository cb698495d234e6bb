"""The tree that one target pass of a beam search reads."""

from dataclasses import dataclass

import torch
from torch import Tensor

from padrec.catalog import CatalogTrie
from padrec.decoding.beam.beam_plan import BeamPass
from padrec.decoding.device.compiled import compiled
from padrec.decoding.layers.prompts import Branches
from padrec.decoding.lists.tensor_record import pick


@dataclass(frozen=True)
class PrefixTree:
    """Prefixes of semantic IDs: a beam and, level by level, all its descendants."""

    nodes: Tensor  # of the trie, int64 [B, N]; the sink where a row has fewer
    tokens: Tensor  # the last token of each prefix, int64 [B, N]
    depths: Tensor  # tokens before it, int64 [N]; -1 for the root, which is the prompt's last token
    seen: Tensor  # tokens after the prompt that each node attends to, bool [B, N, R]
    first_children: Tensor  # index in the tree of each node's first child, int64 [B, N]; undefined in the last level
    first: int  # tokens after the prompt that precede the tree's; -1 if the tree begins with the prompt's last token

    def branches(self) -> Branches:
        """The tree as the target reads it: without the root, which it reads with the prompt."""
        skip = max(-self.first, 0)
        return Branches(self.tokens[:, skip:], self.depths[skip:], self.seen[:, skip:], self.first + skip)


@compiled
def grow(nodes: Tensor, seen: Tensor, trie: CatalogTrie, first: int, stage: BeamPass, fixed_shape: bool) -> PrefixTree:
    """Follow the trie from a beam, int64 `[B, W]`, after `first` tokens were read after the prompt.

    Its children attend to `seen`, bool `[B, W, R]`. With a fixed shape every level is as wide as the plan allows,
    instead of as wide as this batch needs, which reads values on the host; so a GPU needs a fixed shape.
    """
    levels, begins = [nodes], [torch.zeros_like(nodes)]
    sights = [with_itself(seen, first)]
    size = nodes.shape[1]
    for bound in stage.widths[1:]:
        width = bound if fixed_shape else int(trie.n_children(nodes).sum(1).max())
        nodes, parents, firsts = trie.expand(nodes, width)
        above = pick(sights[-1], parents)
        begins[-1] = size + firsts
        levels.append(nodes)
        begins.append(torch.zeros_like(nodes))
        sights.append(with_itself(above, first + size))
        size += nodes.shape[1]
    # Made on the device: while a pass is captured, nothing can be copied there.
    depths = [level.new_full(level.shape[1:], depth) for depth, level in enumerate(levels, stage.level - 1)]
    joined = torch.cat(levels, 1)
    return PrefixTree(
        nodes=joined,
        tokens=trie.token(joined),
        depths=torch.cat(depths),
        seen=torch.cat(sights, 1),
        first_children=torch.cat(begins, 1),
        first=first,
    )


def with_itself(ancestors: Tensor, first: int) -> Tensor:
    """Let the i-th node also attend to token `first + i`; bool `[B, N, R]`."""
    n_nodes, n_columns = ancestors.shape[1:]
    own = torch.arange(first, first + n_nodes, device=ancestors.device)
    return ancestors | (own[:, None] == torch.arange(n_columns, device=ancestors.device))
