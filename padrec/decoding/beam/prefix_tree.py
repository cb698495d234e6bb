"""What one target pass of a beam search reads."""

from dataclasses import dataclass

import torch
from torch import Tensor

from padrec.catalog import CatalogTrie
from padrec.decoding.beam.beam_plan import BeamPass
from padrec.decoding.layers.prompts import Branches


@dataclass(frozen=True)
class PrefixTree:
    """Prefixes of semantic IDs: a beam and, level by level, all that may follow it.

    Attributes:
        nodes: trie nodes, int64 `[B, N]`; the trie's sink where a row has fewer.
        tokens: the last token of each prefix, int64 `[B, N]`.
        depths: tokens before it, int64 `[N]`; -1 for the root, which is the prompt's last token.
        seen: what each sees of the tokens behind the prompt, bool `[B, N, R]`.
        first_children: where in the tree the children of each begin, int64 `[B, N]`; meaningless in the last level.
        first: how many tokens behind the prompt stand before the tree's; -1 where it begins with the prompt's last.
    """

    nodes: Tensor
    tokens: Tensor
    depths: Tensor
    seen: Tensor
    first_children: Tensor
    first: int

    @classmethod
    def grow(cls, trie: CatalogTrie, nodes: Tensor, seen: Tensor, first: int, stage: BeamPass) -> "PrefixTree":
        """Follow the trie from a beam.

        Args:
            trie: of the catalog.
            nodes: the beam, int64 `[B, W]`.
            seen: its ancestors behind the prompt, bool `[B, W, R]`.
            first: tokens behind the prompt that are read already.
            stage: how far to go.
        """
        levels, begins = [nodes], [torch.zeros_like(nodes)]
        sights = [_with_itself(seen, first)]
        size = nodes.shape[1]
        for bound in stage.widths[1:]:
            nodes, parents, firsts = trie.expand(levels[-1], _width(trie, levels[-1], bound))
            above = sights[-1].gather(1, parents[..., None].expand(-1, -1, seen.shape[-1]))
            begins[-1] = size + firsts
            levels.append(nodes)
            begins.append(torch.zeros_like(nodes))
            sights.append(_with_itself(above, first + size))
            size += nodes.shape[1]
        # Made on the device, since nothing can be copied there while a pass is recorded.
        depths = [level.new_full(level.shape[1:], depth) for depth, level in enumerate(levels, stage.level - 1)]
        joined = torch.cat(levels, 1)
        return cls(
            nodes=joined,
            tokens=trie.token(joined),
            depths=torch.cat(depths),
            seen=torch.cat(sights, 1),
            first_children=torch.cat(begins, 1),
            first=first,
        )

    def branches(self) -> Branches:
        """The tree as the target reads it; without the root, which it reads with the prompt."""
        skip = max(-self.first, 0)
        return Branches(self.tokens[:, skip:], self.depths[skip:], self.seen[:, skip:], self.first + skip)


def _with_itself(ancestors: Tensor, first: int) -> Tensor:
    """Lets the i-th of the nodes, whose ancestors are bool `[B, N, R]`, see the token `first + i` as well."""
    n_nodes, n_columns = ancestors.shape[1:]
    own = torch.arange(first, first + n_nodes, device=ancestors.device)
    return ancestors | (own[:, None] == torch.arange(n_columns, device=ancestors.device))


def _width(trie: CatalogTrie, nodes: Tensor, bound: int) -> int:
    """How many children to make room for."""
    if nodes.device.type == "cuda":
        return bound  # shapes must not depend on data there, nor the device be asked for any
    return int(trie.n_children(nodes).sum(1).max())
