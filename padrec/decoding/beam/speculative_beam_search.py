"""The steps of a speculative beam search, which can be captured."""

from dataclasses import dataclass

import torch
from torch import Tensor

from padrec.decoding.beam.beam_draft import BeamDraftSession
from padrec.decoding.beam.beam_plan import SpeculativeBeamPlan
from padrec.decoding.beam.beam_rule import BeamRule, DraftView
from padrec.decoding.beam.children import Children, Draw
from padrec.decoding.beam.draft_search import DraftSearch, Level, SearchContext, join
from padrec.decoding.beam.prefix_tree import with_itself
from padrec.decoding.beam.selection import best_first
from padrec.decoding.device.compiled import compiled
from padrec.decoding.layers.prompts import Prompts
from padrec.decoding.layers.runner import TransformersRunner, TransformersSession
from padrec.decoding.lists.catalog_constraint import CatalogConstraint
from padrec.decoding.lists.decoding_trace import RoundStatistics
from padrec.decoding.lists.tensor_record import TensorRecord, pick


@dataclass(frozen=True)
class SearchedBeam(TensorRecord):
    """The prefixes that the target has chosen, in catalog order, rows at levels of their own."""

    nodes: Tensor  # of the trie, int64 [B, W]; the sink where there are fewer
    scores: Tensor  # log-probabilities of the prefixes, [B, W]; minus infinity where there are fewer
    log_probs: Tensor  # those of their codes, [B, W, L]; 0 after the last one
    seen: Tensor  # tokens after the prompt that the prefixes' last codes attend to besides themselves, bool [B, W, R]
    level: Tensor  # codes of the prefixes, int64 [B]

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
        return self.map(lambda own, new: torch.where(rows.view(-1, *[1] * (own.ndim - 1)), own, new), other)


@dataclass(frozen=True)
class RankedBeam(TensorRecord):
    """The best of a beam, valid where its prefixes are complete items."""

    leaves: Tensor  # the K best, int64 [B, K], ties in catalog order
    log_probs: Tensor  # those of their codes, [B, K, L]
    next_round: Tensor  # which round continues: the fewest codes of a row's prefixes, int64 []; L if all are complete


class SpeculativeBeamSearch:
    """The search for batches of one size, one after another in the same tensors.

    A round drafts the next levels by the draft's own beam search, reads them in one target pass, after the target's
    beam, and follows the target's own search as long as all prefixes that it keeps were drafted. `start` is round 0,
    whose pass also reads the prompts. Rounds can be captured (see `CapturedGraph`). The sessions of target and draft
    are those for batches of this size.

    Attributes:
        beam: what the target has chosen so far.
        ranked: the best of it.
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
        self._context = SearchContext(constraint, plan, rule, draw)
        self._search = DraftSearch(draft, self._context)
        dtype = torch.promote_types(runner.model.dtype, torch.float32)
        self._root = SearchedBeam.empty(plan, draw.keys, constraint.trie.sink, dtype)
        self._first = _first_level(self._root)
        self.beam = self._root.clone()
        shape = len(draw.keys), constraint.list_length
        log_probs = self.beam.log_probs.new_zeros(*shape, plan.n_slots)
        self.ranked = RankedBeam(draw.keys.new_zeros(shape), log_probs, draw.keys.new_zeros(()))
        n_slot_states = constraint.vocabulary.n_slot_states
        self.statistics = RoundStatistics(len(draw.keys), n_slot_states, plan.n_slots - 1, draw.keys.device)

    def start(self, prompts: Prompts, keys: Tensor) -> None:
        """Round 0, with the requests' random keys, int64 `[B]`."""
        self._draw.keys.copy_(keys)
        if prompts.excluded is not None:
            self._constraint.exclude(prompts.excluded)
        if widths := self._plan.drafted(0):
            levels = self._search.levels(self._first, self._draft.begin(prompts, None)[:, None], 0, widths)
            outputs = self._target.prefill_branches(prompts, join(levels[1].tokens, levels[1:], 0))
        else:
            _, features = self._target.prefill(prompts)
            self._draft.begin(prompts, features)
            levels, outputs = [self._first], pick(features, prompts.lengths[:, None] - 1)
        self._follow(self._root, levels, outputs, 0)

    def round(self, round_: int) -> None:
        """Round 1 … L - 1, for the rows that are not complete, whose prefixes have at least that many codes."""
        first, widths = self._plan.first(round_), self._plan.drafted(round_)
        head = _head(self.beam.nodes, self.beam, self._context, first)
        levels = self._search.levels(head, self._search.read(head, first) if widths else None, round_, widths)
        outputs = self._target.read_branches(join(head.tokens, levels, first))
        self._draft.observe(outputs, first)
        self._follow(self.beam, levels, outputs, round_)

    def _follow(self, beam: SearchedBeam, levels: list[Level], outputs: Tensor, round_: int) -> None:
        # All logits in one product: it costs what reading the head's weights costs.
        result = self.beam, self.ranked, self.statistics
        _follow(self._logits(outputs), beam, levels, self._context, round_, *result)


def _first_level(root: SearchedBeam) -> Level:
    depths = torch.full_like(root.level[:1, None], -1)  # the prompt's last token
    nodes = root.nodes[:, :1]
    return Level(nodes, nodes, root.scores[:, :1], depths, root.seen[:, :1])


@compiled
def _head(nodes: Tensor, beam: SearchedBeam, context: SearchContext, first: int) -> Level:
    """A beam with these nodes as the first level of a round, to be read at columns `first`."""
    depths = (beam.level[:, None] - 1).expand_as(nodes)
    return Level(nodes, context.constraint.trie.token(nodes), beam.scores, depths, with_itself(beam.seen, first))


@compiled
def _follow(
    logits: Tensor,
    beam: SearchedBeam,
    levels: list[Level],
    context: SearchContext,
    round_: int,
    result: SearchedBeam,
    ranked: RankedBeam,
    statistics: RoundStatistics,
) -> None:
    """Continue the target's search through the tree that a round has read, as far as the rule goes.

    One function, so that on a GPU the compiler fuses what follows a pass.

    Args:
        logits: the target's after each node of the tree, `[B, nodes, V]`.
        beam: where the round began.
        levels: of the tree, the beam's own prefixes first.
        context: what is searched.
        round_: number of the round.
        result: receives the new beam.
        ranked: receives the best of it.
        statistics: counts the round, the first one anew.
    """
    plan, sink = context.plan, context.constraint.trie.sink
    start, begins, current = beam.level, beam.level < plan.n_slots, beam
    places = torch.arange(levels[0].nodes.shape[1], device=start.device).expand(len(start), -1)  # in the level
    offset, going, accepted = 0, begins, torch.zeros_like(start)
    for step, level in enumerate(levels):
        most, n = plan.most_children(round_, step), places.shape[1]
        following = levels[step + 1] if step + 1 < len(levels) else None
        found = pick(logits, offset + places)
        children = context.children(current.nodes[:, :n], current.scores[:, :n], found, most)
        view = _view(children, level, places, following, context, most)
        kept = context.rule.keep(children, view, context.draw, plan.width)
        current = _extended(current, children, kept.index, pick(level.seen, places), sink, most)
        beam = current.where(going, beam)
        if following is not None:
            places, proposed = _find(following.nodes, current.nodes)
            all_proposed = (proposed | (current.nodes == sink)).all(1)
            going = going & kept.accepted & all_proposed & (current.level < plan.n_slots)
            accepted = accepted + going
        offset += level.nodes.shape[1]
    _count(statistics, plan, begins, start, accepted, len(levels) - 1, round_)
    result.copy_(beam)
    ranked.copy_(_ranked(beam, context, ranked.leaves.shape[1]))


def _ranked(beam: SearchedBeam, context: SearchContext, list_length: int) -> RankedBeam:
    order = best_first(beam.scores, list_length)
    leaves = context.constraint.trie.leaf(beam.nodes.gather(1, order))
    return RankedBeam(leaves, pick(beam.log_probs, order), beam.level.amin())


def _count(
    statistics: RoundStatistics,
    plan: SpeculativeBeamPlan,
    begins: Tensor,
    start: Tensor,
    accepted: Tensor,
    drafted: int,
    round_: int,
) -> None:
    """Count a round, and the levels that it drafted, by the slot of their last code."""
    if round_ == 0:
        statistics.reset()
    else:
        statistics.add_round(begins, len(plan.drafted(round_)))
    slots = start[:, None] + torch.arange(plan.n_slots - 1, device=start.device)
    # The last level is never drafted, so an item that is complete has nothing missed.
    reached = torch.minimum(accepted + 1, (plan.n_slots - 1 - start).clamp(0, drafted))
    statistics.add_proposals(slots, accepted, reached, begins)


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
    children: Children, level: Level, places: Tensor, following: Level | None, context: SearchContext, most: int
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
