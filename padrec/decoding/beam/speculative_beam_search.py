"""The steps of a speculative beam search, which can be captured."""

import math
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from padrec.decoding.beam.beam_draft import BeamDraftSession
from padrec.decoding.beam.beam_rule import BeamRule, DraftView
from padrec.decoding.beam.children import Children, best_in_order
from padrec.decoding.beam.draw import Draw
from padrec.decoding.beam.prefix_tree import with_itself
from padrec.decoding.device.compiled import compiled
from padrec.decoding.layers.prompts import Branches, Prompts
from padrec.decoding.layers.runner import TransformersRunner, TransformersSession
from padrec.decoding.lists.catalog_constraint import CatalogConstraint
from padrec.decoding.lists.decoding_trace import RoundStatistics
from padrec.decoding.lists.tensor_record import TensorRecord, pick


@dataclass(frozen=True)
class SpeculativeBeamPlan:
    """The sizes of a speculative beam search.

    Attributes:
        level_sizes: prefixes of 1 … L codes in the catalog, `[L]`.
        children: the most children of a prefix of 0 … L - 1 codes, `[L]`.
        width: W, prefixes that the target keeps of each length.
        draft_width: N, the most prefixes that the draft proposes of each length.
        renormalise: see `BeamDecoder`.
    """

    level_sizes: tuple[int, ...]
    children: tuple[int, ...]
    width: int
    draft_width: int
    renormalise: bool = False

    @property
    def n_slots(self) -> int:
        """L, codes of an item and the most rounds: each adds at least one code."""
        return len(self.level_sizes)

    def drafted(self, round_: int) -> tuple[int, ...]:
        """Prefixes that round 0 … L - 1 drafts of each length, shortest first; complete items are not read."""
        first_round = tuple(min(self.draft_width, size) for size in self.level_sizes[:-1])
        return first_round if round_ == 0 else (self.draft_width,) * (self.n_slots - 1 - round_)

    def first(self, round_: int) -> int:
        """Tokens after each prompt that the rounds before read: all but the first read the beam, too."""
        return sum(sum(self.drafted(earlier)) for earlier in range(round_)) + self.width * max(0, round_ - 1)

    def most_children(self, round_: int, step: int) -> int:
        """Children that no prefix has more of at a step of a round, in which rows are at levels of their own.

        Padded, so that a step always has as many children as it keeps.
        """
        most = self.children[step] if round_ == 0 else max(self.children[min(round_ + step, self.n_slots - 1) :])
        beam = 1 if round_ == step == 0 else self.width
        return max(most, math.ceil(max(self.width, self.draft_width) / beam)) if step == 0 else most


@dataclass(frozen=True)
class SearchedBeam(TensorRecord):
    """The prefixes that the target has chosen, in catalog order, rows at levels of their own.

    Attributes:
        nodes: trie nodes, int64 `[B, W]`; the sink where there are fewer.
        scores: log-probabilities of the prefixes, `[B, W]`; minus infinity where there are fewer.
        log_probs: those of their codes, `[B, W, L]`; 0 after the last one.
        seen: tokens after the prompt that the prefixes' last codes attend to besides themselves, bool `[B, W, R]`.
        level: codes of the prefixes, int64 `[B]`.
    """

    nodes: Tensor
    scores: Tensor
    log_probs: Tensor
    seen: Tensor
    level: Tensor

    @classmethod
    def empty(cls, plan: SpeculativeBeamPlan, keys: Tensor, sink: int, dtype: torch.dtype) -> "SearchedBeam":
        """The root in each row of `keys`, `[B]`, with scores of `dtype`."""
        nodes = keys.new_full((len(keys), plan.width), sink)
        nodes[:, 0] = 0
        scores = torch.zeros_like(nodes, dtype=dtype).masked_fill(nodes > 0, -torch.inf)
        seen = torch.zeros(*nodes.shape, plan.first(plan.n_slots), dtype=torch.bool, device=keys.device)
        return cls(nodes, scores, scores.new_zeros(*nodes.shape, plan.n_slots), seen, torch.zeros_like(keys))

    def where(self, rows: Tensor, other: "SearchedBeam") -> "SearchedBeam":
        """This beam in some rows, bool `[B]`, and the other one elsewhere."""
        pairs = ((getattr(self, field.name), getattr(other, field.name)) for field in fields(self))
        return SearchedBeam(*(torch.where(rows.view(-1, *[1] * (own.ndim - 1)), own, new) for own, new in pairs))


@dataclass(frozen=True)
class _Level:
    """Prefixes of one length in a round's tree."""

    nodes: Tensor  # int64 [B, N], rising; the sink where there are fewer
    scores: Tensor  # the draft's, [B, N]
    depths: Tensor  # tokens between the prompt and the last code, int64 [N], or [B, N] where rows differ
    seen: Tensor  # tokens after the prompt that the next code attends to, bool [B, N, R]
    logits: Tensor | None = None  # the draft's of the next code, [B, N, V]; None if it has not read them


@dataclass(frozen=True)
class _Context:
    """What is searched, and how."""

    constraint: CatalogConstraint
    plan: SpeculativeBeamPlan
    rule: BeamRule
    draw: Draw

    def children(self, nodes: Tensor, scores: Tensor, logits: Tensor, most: int) -> Children:
        """See `Children.of`."""
        return Children.of(self.constraint, nodes, scores, logits, most, self.plan.renormalise)


class SpeculativeBeamSearch:
    """The search for batches of one size, one after another in the same tensors.

    A round drafts the next levels by the draft's own beam search, reads them in one target pass, after the target's
    beam, and follows the target's own search as long as all prefixes that it keeps were drafted. `start` is round 0,
    whose pass also reads the prompts. Rounds can be captured (see `CapturedGraph`).

    Args:
        runner: the target.
        target: its session for batches of this size.
        draft: the draft's session.
        constraint: the items to rank.
        plan: the sizes.
        rule: which prefixes are kept.
        draw: how they are drawn.

    Attributes:
        beam: what the target has chosen so far.
        statistics: what the rounds after the first cost, and how many levels of all rounds were accepted.
    """

    def __init__(
        self,
        runner: TransformersRunner,
        target: TransformersSession,
        draft: BeamDraftSession,
        constraint: CatalogConstraint,
        plan: SpeculativeBeamPlan,
        rule: BeamRule,
        draw: Draw,
    ) -> None:
        self._logits, self._target, self._draft = runner.logits, target, draft
        self._constraint, self._plan, self._draw = constraint, plan, draw
        self._context = _Context(constraint, plan, rule, draw)
        dtype = torch.promote_types(runner.model.dtype, torch.float32)
        self._root = SearchedBeam.empty(plan, draw.keys, constraint.trie.sink, dtype)
        self.beam = self._root.clone()
        n_slot_states = constraint.vocabulary.n_slot_states
        self.statistics = RoundStatistics(len(draw.keys), n_slot_states, plan.n_slots - 1, draw.keys.device)

    def start(self, prompts: Prompts, keys: Tensor) -> None:
        """Round 0, with the requests' random keys, int64 `[B]`."""
        self.statistics.reset()
        self._draw.keys.copy_(keys)
        if prompts.excluded is not None:
            self._constraint.exclude(prompts.excluded)
        root = self._root
        self.beam.copy_(root)
        depths = torch.full_like(root.level[:1], -1)  # the prompt's last token
        head = _Level(root.nodes[:, :1], root.scores[:, :1], depths, root.seen[:, :1])
        begin = self._draft.begin(prompts)[:, None] if self._plan.drafted(0) else None
        levels = self._drafted(head, begin, 0)
        self._follow(levels, self._target.prefill_branches(prompts, self._branches(levels[1:], 0)), 0)

    def round(self, round_: int) -> None:
        """Round 1 … L - 1, for the rows that are not complete."""
        beam, first = self.beam, self._plan.first(round_)
        depths = (beam.level[:, None] - 1).expand_as(beam.nodes)
        head = _Level(beam.nodes, beam.scores, depths, with_itself(beam.seen, first))
        levels = self._drafted(head, self._read(head, first) if self._plan.drafted(round_) else None, round_)
        self.statistics.add_round(self.unfinished(), len(levels) - 1)
        self._follow(levels, self._target.read_branches(self._branches(levels, first)), round_)

    def unfinished(self) -> Tensor:
        """Rows whose prefixes are not complete items, bool `[B]`."""
        return self.beam.level < self._plan.n_slots

    def best(self, count: int) -> tuple[Tensor, Tensor]:
        """The best items, ties in catalog order: leaves, int64 `[B, K]`, and log-probabilities of their codes."""
        order = self.beam.scores.sort(dim=1, descending=True, stable=True).indices[:, :count]
        return self._constraint.trie.leaf(self.beam.nodes.gather(1, order)), pick(self.beam.log_probs, order)

    def _read(self, level: _Level, first: int) -> Tensor:
        return self._draft.extend(self._branches([level], first), level.nodes)

    def _branches(self, levels: list[_Level], first: int) -> Branches:
        nodes = torch.cat([level.nodes for level in levels], 1) if levels else self._root.nodes[:, :0]
        seen = torch.cat([level.seen for level in levels], 1) if levels else self._root.seen[:, :0]
        depths = torch.cat([level.depths for level in levels], -1) if levels else self._root.level[:0]
        return Branches(self._constraint.trie.token(nodes), depths, seen, first)

    def _drafted(self, head: _Level, logits: Tensor | None, round_: int) -> list[_Level]:
        """The head, with the draft's logits after it, and the levels that the draft's own search proposes."""
        plan, levels = self._plan, [replace(head, logits=logits)]
        first, widths = plan.first(round_) + (head.nodes.shape[1] if round_ > 0 else 0), plan.drafted(round_)
        for step, width in enumerate(widths):
            above = levels[-1]
            assert above.logits is not None
            level = _draft_step(above.logits, above, self._context, plan.most_children(round_, step), first, width)
            levels.append(replace(level, logits=self._read(level, first)) if step + 1 < len(widths) else level)
            first += width
        return levels

    def _follow(self, levels: list[_Level], features: Tensor, round_: int) -> None:
        """Continue the target's search through a tree that it has read, `[B, nodes, d]`, as far as the rule goes."""
        beam, begins = self.beam, self.unfinished()
        start, going = beam.level, begins
        places = torch.arange(levels[0].nodes.shape[1], device=start.device).expand(len(start), -1)  # in the level
        offset, accepted = 0, torch.zeros_like(start)
        for step, level in enumerate(levels):
            logits = self._logits(pick(features, offset + places))
            following = levels[step + 1] if step + 1 < len(levels) else None
            most = self._plan.most_children(round_, step)
            beam, places, going = _follow_step(logits, beam, going, places, level, following, self._context, most)
            offset += level.nodes.shape[1]
            if following is not None:
                accepted = accepted + going
        self._count(begins, start, accepted, len(levels) - 1)
        self.beam.copy_(beam)  # the last step: it changes `start`

    def _count(self, begins: Tensor, start: Tensor, accepted: Tensor, drafted: int) -> None:
        """Count the levels that a round drafted, by the slot of their last code."""
        n_slots = self._plan.n_slots
        slots = start[:, None] + torch.arange(n_slots - 1, device=start.device)
        # The last level is never drafted, so an item that is complete has nothing missed.
        reached = torch.minimum(accepted + 1, (n_slots - 1 - start).clamp(0, drafted))
        self.statistics.add_proposals(slots, accepted, reached, begins)


@compiled
def _draft_step(logits: Tensor, above: _Level, context: _Context, most: int, first: int, width: int) -> _Level:
    """The draft's choice of `width` prefixes, to be read at columns `first`, by its logits after the level above."""
    trie = context.constraint.trie
    children = context.children(above.nodes, above.scores, logits, most)
    index = best_in_order(context.rule.draft_ranks(children, context.draw), width)
    nodes, scores = children.nodes.gather(1, index), children.scores.gather(1, index)
    # Complete items are not read.
    nodes = torch.where(trie.is_leaf(nodes) | scores.isneginf(), trie.sink, nodes)
    depths = above.depths[..., :1] + 1
    seen = with_itself(pick(above.seen, index // most), first)
    return _Level(nodes, scores, depths.expand(*depths.shape[:-1], width), seen)


@compiled
def _follow_step(
    logits: Tensor,
    beam: SearchedBeam,
    going: Tensor,
    places: Tensor,
    level: _Level,
    following: _Level | None,
    context: _Context,
    most: int,
) -> tuple[SearchedBeam, Tensor, Tensor]:
    """One step of the target's search in the rows `going`, bool `[B]`.

    Args:
        logits: the target's after the beam's prefixes, `[B, W, V]`.
        beam: before the step.
        going: rows whose prefixes the target has read.
        places: of the prefixes in the level, int64 `[B, W]`.
        level: the tree's prefixes of that length.
        following: those that are one code longer.
        context: what is searched, and how.
        most: children of a prefix.

    Returns:
        The beam, the places of its prefixes in the following level, and the rows that go on.
    """
    n, sink = places.shape[1], context.constraint.trie.sink
    children = context.children(beam.nodes[:, :n], beam.scores[:, :n], logits, most)
    view = _view(children, level, places, following, context, most)
    kept = context.rule.keep(children, view, context.draw, context.plan.width)
    beam = _extended(beam, children, kept.index, pick(level.seen, places), sink, most).where(going, beam)
    if following is None:
        return beam, places, torch.zeros_like(going)
    places, proposed = _find(following.nodes, beam.nodes)
    goes_on = (proposed | (beam.nodes == sink)).all(1) & (beam.level < context.plan.n_slots)
    return beam, places, going & kept.accepted & goes_on


def _extended(
    beam: SearchedBeam, children: Children, index: Tensor, seen: Tensor, sink: int, most: int
) -> SearchedBeam:
    """The beam of the children at `index` `[B, W]`; `seen` is what codes after the beam's prefixes attend to."""
    parents, scores = index // most, children.scores.gather(1, index)
    is_new = torch.arange(beam.log_probs.shape[2], device=index.device) == beam.level[:, None, None]
    log_probs = children.log_probs.gather(1, index)[..., None]
    return SearchedBeam(
        nodes=torch.where(scores.isneginf(), sink, children.nodes.gather(1, index)),
        scores=scores,
        log_probs=torch.where(is_new, log_probs, pick(beam.log_probs, parents)),
        seen=pick(seen, parents),
        level=beam.level + 1,
    )


def _view(
    children: Children, level: _Level, places: Tensor, following: _Level | None, context: _Context, most: int
) -> DraftView | None:
    """What the draft thinks of the children of the prefixes at `places` of its level."""
    temperature = context.draw.temperature
    if not context.rule.reads_draft or temperature == 0 or following is None:
        return None
    assert level.logits is not None
    own = context.children(level.nodes, level.scores, level.logits, most)
    scores, logits = level.scores.gather(1, places), pick(level.logits, places)
    shared = context.children(children.prefixes, scores, logits, most)
    total = (own.scores / temperature).logsumexp(-1, keepdim=True)
    return DraftView(_find(following.nodes, children.nodes)[1], shared.scores / temperature - total)


def _find(nodes: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Places of trie nodes `[B, M]` among rising ones `[B, N]`, and whether they are there, both `[B, M]`."""
    places = torch.searchsorted(nodes, wanted).clamp(max=nodes.shape[1] - 1)
    return places, nodes.gather(1, places) == wanted
