"""Several drafts in one tree, each where it is confident."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from padrec.catalog import InputError, PositiveFloat, check_arguments
from padrec.decoding.device.compiled import compiled
from padrec.decoding.layers.prompts import Prompts
from padrec.decoding.layers.runner import TransformersRunner
from padrec.decoding.lists.request import Request
from padrec.decoding.trees.draft import (
    Draft,
    DraftPlan,
    DraftSession,
    HostDraftSession,
    Observation,
    OnlineDraftSession,
    SessionOpener,
    SourcesDraftSession,
)

FORCED = "forced"
"""The source of accepted tokens that no draft was asked about: those forced after a tree's leaves."""

_LEAST = -1e30
_BINS = 8  # of the first draft's confidence


class CombinedDraft(Draft):
    """One tree from the mixture of several drafts' distributions, Σ_s w_s p_s.

    A confident draft fills the tree; one that spreads its probability leaves it to the others. The weights are
    calibrated while decoding: after every round each draft gets its share of responsibility for the emitted tokens,
    w_s p_s(x) / Σ_r w_r p_r(x), and the weights are the mean responsibilities so far (the EM algorithm's update for the
    weights of a mixture), separately for each slot and each eighth of the first draft's confidence, its largest
    probability. They change no list.

    Args:
        drafts: by name, at least two, such as `retrieval`, `learned` and `catalog`; the first should be the one whose
            confidence says most. None may work on the host.
        patience: how many tokens the equal initial weights count for, in each case.

    Raises:
        InputError: an argument out of range, too few drafts, or drafts that want features of different layers.
    """

    def __init__(self, drafts: Mapping[str, Draft], patience: PositiveFloat = 1.0) -> None:
        check_arguments(CombinedDraft, locals())
        if len(drafts) < 2 or FORCED in drafts:
            raise InputError(f"CombinedDraft: drafts {list(drafts)}, expected at least two, none called {FORCED!r}")
        layers = {name: tuple(draft.feature_layers) for name, draft in drafts.items()}
        if len(set(layers.values())) > 1:
            raise InputError(f"CombinedDraft: feature layers {layers}, expected the same ones for all drafts")
        self.drafts, self.patience = dict(drafts), patience
        self.feature_layers = next(iter(drafts.values())).feature_layers
        self.sources = (*drafts, FORCED)

    @property
    def facts(self) -> dict[str, Any]:
        """Those of all drafts; see `Draft.facts`."""
        return {key: value for draft in self.drafts.values() for key, value in draft.facts.items()}

    def bind(self, runner: TransformersRunner, request: Request[Any]) -> SessionOpener:
        """Bind all drafts; their weights are shared by the sessions; see `Draft.bind`."""
        openers = [draft.bind(runner, request) for draft in self.drafts.values()]
        shape, device = (request.n_slot_states, _BINS, len(openers)), runner.model.device
        shares = torch.full(shape, self.patience / len(openers), dtype=torch.float32, device=device)
        return partial(self._open, openers, shares)

    def _open(self, openers: Sequence[SessionOpener], shares: Tensor, plan: DraftPlan) -> "CombinedSession":
        sessions = [opener(plan) for opener in openers]
        for name, session in zip(self.drafts, sessions, strict=True):
            if isinstance(session, HostDraftSession):
                raise InputError(f"CombinedDraft: {name} works on the host, expected drafts that work on the device")
        return CombinedSession(sessions, list(self.drafts), shares, plan)


class _Opinions(NamedTuple):
    """What all drafts say of the tokens after k nodes."""

    log_probs: Tensor  # [S, B, k, V]
    cases: Tensor  # slot and bin of each node as one number, int64 [B, k]
    weights: Tensor  # logarithms of the drafts' weights, [S, B, k]


class _Level(NamedTuple):
    """The nodes that all drafts have read at one depth."""

    opinions: _Opinions
    tokens: Tensor  # int64 [B, k]
    parents: Tensor  # among the nodes one depth above, int64 [B, k]


class CombinedSession(OnlineDraftSession, SourcesDraftSession):
    """A `CombinedDraft` for batches of one shape.

    `shares` are the responsibility that each draft has gathered, float32 `[slots, bins, S]`, changed in place.
    """

    def __init__(self, sessions: Sequence[DraftSession], names: Sequence[str], shares: Tensor, plan: DraftPlan) -> None:
        self._sessions, self._shares, self.sources = sessions, shares, [*names, FORCED]
        self._slot = torch.zeros(plan.batch, dtype=torch.long, device=shares.device)  # of the root
        self.accepted = torch.zeros(len(self.sources), dtype=torch.long, device=shares.device)
        self._levels: list[_Level] = []

    def next_batch(self, prompts: Prompts) -> None:
        """See `OnlineDraftSession`."""
        for session in self._sessions:
            if isinstance(session, OnlineDraftSession):
                session.next_batch(prompts)

    def begin(self, prompts: Prompts, features: Tensor, first: Tensor, first_slot: Tensor) -> None:
        """Begin with all drafts."""
        for session in self._sessions:
            session.begin(prompts, features, first, first_slot)
        self._slot.copy_(first_slot)
        self.accepted.zero_()

    def root_logits(self) -> Tensor:
        """The logarithm of the mixture after the root; see `DraftSteps`."""
        logits = [session.root_logits()[:, None] for session in self._sessions]
        opinions, mixed = _mixed(self._shares, self._slot[:, None], logits)
        root = torch.zeros_like(self._slot)[:, None]
        self._levels = [_Level(opinions, root, root)]
        return mixed[:, 0]

    def extend(self, tokens: Tensor, parents: Tensor, slots: Tensor, depth: int) -> Tensor:
        """The logarithm of the mixture after each node; see `DraftSteps`."""
        logits = [session.extend(tokens, parents, slots, depth) for session in self._sessions]
        opinions, mixed = _mixed(self._shares, slots, logits)
        self._levels.append(_Level(opinions, tokens, parents))
        return mixed

    def observe(self, observation: Observation) -> None:
        """Share the responsibility for what the round emitted."""
        tokens, slots, count = observation.tokens, observation.slots, observation.count
        _share(self._shares, self.accepted, self._levels, tokens, count)
        last = slots.gather(1, (count - 1).clamp(min=0)[:, None])[:, 0]
        self._slot.copy_(torch.where(count > 0, last, self._slot))
        for session in self._sessions:
            session.observe(observation)


@compiled
def _mixed(shares: Tensor, slots: Tensor, logits: Sequence[Tensor]) -> tuple[_Opinions, Tensor]:
    """What the drafts say at nodes in these slots, and the log-probabilities of their mixture, `[B, k, V]`."""
    # Whatever a draft returns, the other ones still count.
    finite = torch.stack([one.float().nan_to_num(_LEAST, -_LEAST, _LEAST) for one in logits])
    log_probs = finite.log_softmax(-1)
    bins = (log_probs[0].amax(-1).exp() * _BINS).long().clamp(max=_BINS - 1)  # [B, k]
    weights = (shares / shares.sum(-1, keepdim=True)).log()[slots, bins].movedim(-1, 0)  # [S, B, k]
    mixed = (log_probs + weights[..., None]).logsumexp(0)
    return _Opinions(log_probs, slots * _BINS + bins, weights), mixed


@compiled
def _share(shares: Tensor, accepted: Tensor, levels: Sequence[_Level], tokens: Tensor, count: Tensor) -> None:
    """Add the responsibilities for emitted tokens `[B, M]` to the shares, and count the accepted ones by source.

    They are known as far as the path leads through nodes that the drafts have read.
    """
    rows, known = torch.arange(len(tokens), device=tokens.device), count > 0
    node, gained = torch.zeros_like(count), torch.zeros_like(shares).flatten(0, 1)  # [slots * bins, S]
    n_cases, n_drafts = gained.shape
    by_draft = torch.zeros_like(accepted[:n_drafts])
    for depth, (opinions, level_tokens, parents) in enumerate(levels):
        if depth > 0:
            is_next = (level_tokens == tokens[:, depth - 1, None]) & (parents == node[:, None])  # [B, k]
            known, node = known & is_next.any(1) & (depth < count), is_next.int().argmax(1)
        found = opinions.log_probs[:, rows, node, tokens[:, depth]] + opinions.weights[:, rows, node]  # [S, B]
        responsible = torch.where(known, found.softmax(0), 0)
        is_case = opinions.cases[rows, node] == torch.arange(n_cases, device=shares.device)[:, None]  # [cases, B]
        gained = gained + (is_case[..., None] * responsible.T).sum(1)
        is_source = responsible.argmax(0) == torch.arange(n_drafts, device=shares.device)[:, None]  # [S, B]
        by_draft = by_draft + (is_source & known & (depth < count - 1)).sum(1)
    shares.add_(gained.view(shares.shape))
    forced = (count - 1).clamp(min=0).sum() - by_draft.sum()
    accepted.add_(torch.cat([by_draft, forced[None]]))
