"""The steps of a speculative beam search, which can be captured."""

from dataclasses import dataclass

import torch
from torch import Tensor

from padrec.decoding.beam.beam_draft import BeamDraftSession
from padrec.decoding.beam.beam_plan import SpeculativeBeamPlan
from padrec.decoding.beam.beam_rule import BeamRule, DraftView
from padrec.decoding.beam.children import Children, Draw, best_first
from padrec.decoding.beam.draft_search import DraftSearch, Level, SearchContext
from padrec.decoding.beam.prefix_tree import with_itself
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


class SpeculativeBeamSearch:
    """The search for batches of one size, one after another in the same tensors.

    A round drafts the next levels by the draft's own beam search, reads them in one target pass, after the target's
    beam, and follows the target's own search as long as all prefixes that it keeps were drafted. `start` is round 0,
    whose pass also reads the prompts. Rounds can be captured (see `CapturedGraph`). The sessions of target and draft
    are those for batches of this size.

    Attributes:
        beam: what the target has chosen so far.
        next_round: which round continues, int64 `[]`: the fewest codes of a row's prefixes; L if all are complete.
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
        self.beam = self._root.clone()
        self.next_round = self.beam.level.new_zeros(())
        shape = len(draw.keys), constraint.list_length
        self._leaves, self._log_probs = draw.keys.new_zeros(shape), self.beam.log_probs.new_zeros(*shape, plan.n_slots)
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
        head = Level(root.nodes[:, :1], root.scores[:, :1], depths, root.seen[:, :1])
        if widths := self._plan.drafted(0):
            levels = self._search.levels(head, self._draft.begin(prompts, None)[:, None], 0, widths)
            outputs = self._target.prefill_branches(prompts, self._context.branches(levels[1:], 0))
        else:
            _, features = self._target.prefill(prompts)
            self._draft.begin(prompts, features)
            levels, outputs = [head], pick(features, prompts.lengths[:, None] - 1)
        self._follow(levels, outputs, 0)

    def round(self, round_: int) -> None:
        """Round 1 … L - 1, for the rows that are not complete, whose prefixes have at least that many codes."""
        beam, first = self.beam, self._plan.first(round_)
        depths = (beam.level[:, None] - 1).expand_as(beam.nodes)
        head = Level(beam.nodes, beam.scores, depths, with_itself(beam.seen, first))
        widths = self._plan.drafted(round_)
        levels = self._search.levels(head, self._search.read(head, first) if widths else None, round_, widths)
        self.statistics.add_round(self.unfinished(), len(widths))
        outputs = self._target.read_branches(self._context.branches(levels, first))
        self._draft.observe(outputs, first)
        self._follow(levels, outputs, round_)

    def unfinished(self) -> Tensor:
        """Rows whose prefixes are not complete items, bool `[B]`."""
        return self.beam.level < self._plan.n_slots

    def best(self) -> tuple[Tensor, Tensor]:
        """The K best leaves, int64 `[B, K]`, ties in catalog order, and log-probabilities of their codes, `[B, K, L]`.

        Valid where the search is complete, until the next one.
        """
        return self._leaves, self._log_probs

    def _rank(self) -> None:
        self.next_round.copy_(self.beam.level.amin())
        order = best_first(self.beam.scores, self._leaves.shape[1])
        self._leaves.copy_(self._constraint.trie.leaf(self.beam.nodes.gather(1, order)))
        self._log_probs.copy_(pick(self.beam.log_probs, order))

    def _follow(self, levels: list[Level], features: Tensor, round_: int) -> None:
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
        self.beam.copy_(beam)  # after all else: it changes `start`
        self._rank()

    def _count(self, begins: Tensor, start: Tensor, accepted: Tensor, drafted: int) -> None:
        """Count the levels that a round drafted, by the slot of their last code."""
        n_slots = self._plan.n_slots
        slots = start[:, None] + torch.arange(n_slots - 1, device=start.device)
        # The last level is never drafted, so an item that is complete has nothing missed.
        reached = torch.minimum(accepted + 1, (n_slots - 1 - start).clamp(0, drafted))
        self.statistics.add_proposals(slots, accepted, reached, begins)


@compiled
def _follow_step(
    logits: Tensor,
    beam: SearchedBeam,
    going: Tensor,
    places: Tensor,
    level: Level,
    following: Level | None,
    context: SearchContext,
    most: int,
) -> tuple[SearchedBeam, Tensor, Tensor]:
    """One step of the target's search in the rows `going`, bool `[B]`, whose prefixes it has read.

    Logits are the target's after the beam's prefixes, `[B, W, V]`; these are at `places`, int64 `[B, W]`, of the tree's
    level of that length. No prefix has more than `most` children. Returns the beam, the places of its prefixes in the
    following level, and the rows that go on.
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
