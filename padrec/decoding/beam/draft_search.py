"""A draft's own beam search, which a target's pass verifies."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from padrec.decoding.beam.beam_draft import BeamDraftSession
from padrec.decoding.beam.beam_plan import SpeculativeBeamPlan
from padrec.decoding.beam.beam_rule import BeamRule
from padrec.decoding.beam.children import Children, Draw, best_in_order
from padrec.decoding.beam.prefix_tree import with_itself
from padrec.decoding.device.compiled import compiled
from padrec.decoding.layers.prompts import Branches
from padrec.decoding.lists.catalog_constraint import CatalogConstraint
from padrec.decoding.lists.tensor_record import pick


@dataclass(frozen=True)
class Level:
    """Prefixes of one length in a round's tree."""

    nodes: Tensor  # of the trie, int64 [B, N], rising; the sink where there are fewer
    scores: Tensor  # the draft's log-probabilities, [B, N]
    depths: Tensor  # tokens between the prompt and the last code, int64 [N], or [B, N] where rows differ
    seen: Tensor  # tokens after the prompt that the next code attends to, bool [B, N, R]
    logits: Tensor | None = None  # the draft's of the next code, [B, N, V]; None if it has not read them


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

    def branches(self, levels: Sequence[Level], first: int) -> Branches:
        """Levels, at least one, as they are read after `first` earlier tokens."""
        nodes, seen = (torch.cat(parts, 1) for parts in zip(*((x.nodes, x.seen) for x in levels), strict=True))
        depths = torch.cat([level.depths for level in levels], -1)
        return Branches(self.constraint.trie.token(nodes), depths, seen, first)


def _next_level(logits: Tensor, above: Level, context: SearchContext, most: int, first: int, width: int) -> Level:
    """The draft's choice of `width` prefixes, to be read at columns `first`, by its logits after the level above.

    No prefix above has more than `most` children.
    """
    children = context.children(above.nodes, above.scores, logits, most)
    index = best_in_order(context.rule.draft_ranks(children, context.draw), width)
    nodes, order = children.nodes.gather(1, index).sort(1)  # what is missing comes last, not where it is missing
    index = index.gather(1, order)
    depths = above.depths[..., :1] + 1
    seen = with_itself(pick(above.seen, index // most), first)
    return Level(nodes, children.scores.gather(1, index), depths.expand(*depths.shape[:-1], width), seen)


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
        """The draft's logits after the prefixes of a level, `[B, N, V]`; `first` as in `SearchContext.branches`."""
        return self.draft.extend(self.context.branches([level], first), level.nodes)
