"""A draft's own beam search, which a target's pass verifies."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from padrec.decoding.beam.beam_draft import BeamDraftSession
from padrec.decoding.beam.beam_plan import SpeculativeBeamPlan
from padrec.decoding.beam.beam_rule import BeamRule
from padrec.decoding.beam.children import Children, Draw
from padrec.decoding.beam.prefix_tree import with_itself
from padrec.decoding.beam.selection import best_in_order
from padrec.decoding.device.compiled import compiled
from padrec.decoding.layers.prompts import Branches
from padrec.decoding.lists.catalog_constraint import CatalogConstraint
from padrec.decoding.lists.tensor_record import pick


@dataclass(frozen=True)
class Level:
    """Prefixes of one length in a round's tree."""

    nodes: Tensor  # of the trie, int64 [B, N], rising; the sink where there are fewer
    tokens: Tensor  # their last codes, int64 [B, N]
    scores: Tensor  # the draft's log-probabilities, [B, N]
    depths: Tensor  # tokens between the prompt and the last code, int64 [1, N], or [B, N] where rows differ
    seen: Tensor  # tokens after the prompt that the next code attends to, bool [B, N, R]
    logits: Tensor | None = None  # the draft's of the next code, [B, N, V]; None if it has not read them

    def branches(self, first: int) -> Branches:
        """The level as it is read after `first` earlier tokens."""
        return Branches(self.tokens, self.depths, self.seen, first)


@dataclass(frozen=True)
class SearchContext:
    """What is searched, and how."""

    constraint: CatalogConstraint
    plan: SpeculativeBeamPlan
    rule: BeamRule
    draw: Draw

    def children(self, nodes: Tensor, scores: Tensor, logits: Tensor, most: int) -> Children:
        """See `Children.of`."""
        return Children.of(self.constraint, nodes, scores, logits, most, self.plan.renormalise)


@compiled
def join(tokens: Tensor, levels: Sequence[Level], first: int) -> Branches:
    """Levels, the first of which has these tokens, as they are read after `first` earlier tokens."""
    parts = zip(*((level.tokens, level.depths, level.seen) for level in levels), strict=True)
    joined, depths, seen = (torch.cat(part, 1) for part in parts)
    return Branches(joined, depths, seen, first)


def _next_level(logits: Tensor, above: Level, context: SearchContext, most: int, first: int, width: int) -> Level:
    """The draft's choice of `width` prefixes, to be read at columns `first`, by its logits after the level above.

    No prefix above has more than `most` children.
    """
    children = context.children(above.nodes, above.scores, logits, most)
    index = best_in_order(context.rule.draft_ranks(children, context.draw), width)
    scores = children.scores.gather(1, index)
    nodes = torch.where(scores.isneginf(), context.constraint.trie.sink, children.nodes.gather(1, index))
    depths = (above.depths[:, :1] + 1).expand(-1, width)
    seen = with_itself(pick(above.seen, index // most), first)
    return Level(nodes, children.tokens.gather(1, index), scores, depths, seen)


_compiled_level = compiled(_next_level)


@dataclass(frozen=True)
class DraftSearch:
    """Searches level by level."""

    draft: BeamDraftSession
    context: SearchContext
    compiles: bool = True  # whether its steps are compiled on a GPU

    def levels(self, head: Level, logits: Tensor | None, round_: int, widths: Sequence[int]) -> list[Level]:
        """The head, with the draft's logits after it, and the levels that follow.

        The last level is not read; logits are None where there are no others.
        """
        next_level = _compiled_level if self.compiles else _next_level
        plan, levels = self.context.plan, [replace(head, logits=logits)]
        first = plan.first(round_) + (head.nodes.shape[1] if round_ > 0 else 0)
        for step, width in enumerate(widths):
            above = levels[-1]
            assert above.logits is not None
            level = next_level(above.logits, above, self.context, plan.most_children(round_, step), first, width)
            is_last = step + 1 == len(widths)
            levels.append(level if is_last else replace(level, logits=self.read(level, first)))
            first += width
        return levels

    def read(self, level: Level, first: int) -> Tensor:
        """The draft's logits after the prefixes of a level, `[B, N, V]`; `first` as in `Level.branches`."""
        return self.draft.extend(level.branches(first), level.nodes)
