"""Several drafts in one tree, each where it is sure."""

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


class CombinedDraft(Draft):
    """One tree from the mixture of several drafts' distributions, Σ_s w_s p_s.

    A draft that is sure fills the tree, one that knows nothing and spreads its probability leaves it to the others. The
    weights are calibrated while decoding: after every round each draft gets its share of responsibility for the emitted
    tokens, w_s p_s(x) / Σ_r w_r p_r(x), and the weights of a slot are the mean responsibilities so far (the EM
    algorithm's update for the weights of a mixture). They change no list.

    Args:
        drafts: by name, at least two, such as `retrieval`, `learned` and `catalog`; none may work on the host.
        patience: tokens that the equal weights of the beginning count for.

    Raises:
        InputError: an argument out of range, too few drafts, or drafts that want features of different layers.
    """

    def __init__(self, drafts: Mapping[str, Draft], patience: PositiveFloat = 100.0) -> None:
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
        share = torch.full((request.n_slot_states, len(openers)), self.patience / len(openers))
        return partial(self._open, openers, share.to(runner.model.device))

    def _open(self, openers: Sequence[SessionOpener], shares: Tensor, plan: DraftPlan) -> "CombinedSession":
        sessions = [opener(plan) for opener in openers]
        for name, session in zip(self.drafts, sessions, strict=True):
            if isinstance(session, HostDraftSession):
                raise InputError(f"CombinedDraft: {name} works on the host, expected drafts that work on the device")
        return CombinedSession(sessions, list(self.drafts), shares, plan)


class _Level(NamedTuple):
    """The nodes that all drafts have read at one depth."""

    log_probs: Tensor  # of every draft, [S, B, k, V]
    tokens: Tensor  # int64 [B, k]
    parents: Tensor  # among the nodes one depth above, int64 [B, k]


class CombinedSession(OnlineDraftSession, SourcesDraftSession):
    """A `CombinedDraft` for batches of one shape.

    Args:
        sessions: of the drafts.
        names: of the drafts.
        shares: responsibility that each draft has gathered in each slot, float32 `[slots, S]`, changed in place.
        plan: the batch shape and the rounds.
    """

    def __init__(self, sessions: Sequence[DraftSession], names: Sequence[str], shares: Tensor, plan: DraftPlan) -> None:
        self._sessions, self._names, self._shares = sessions, names, shares
        self._slot = torch.zeros(plan.batch, dtype=torch.long, device=shares.device)  # of the root
        self._accepted = torch.zeros(len(names) + 1, dtype=torch.long, device=shares.device)
        self._levels: list[_Level] = []

    def next_batch(self, prompts: Prompts) -> None:
        """See `OnlineDraftSession`."""
        for session in self._sessions:
            if isinstance(session, OnlineDraftSession):
                session.next_batch(prompts)

    def accepted_by_source(self) -> dict[str, int]:
        """See `SourcesDraftSession`."""
        return dict(zip([*self._names, FORCED], self._accepted.tolist(), strict=True))

    def begin(self, prompts: Prompts, features: Tensor, first: Tensor, first_slot: Tensor) -> None:
        """Begin with all drafts."""
        for session in self._sessions:
            session.begin(prompts, features, first, first_slot)
        self._slot.copy_(first_slot)
        self._accepted.zero_()

    def root_logits(self) -> Tensor:
        """The logarithm of the mixture after the root; see `DraftSteps`."""
        logits = [session.root_logits()[:, None] for session in self._sessions]
        log_probs, mixed = _mixed(self._shares, self._slot[:, None], logits)
        root = torch.zeros_like(self._slot)[:, None]
        self._levels = [_Level(log_probs, root, root)]
        return mixed[:, 0]

    def extend(self, tokens: Tensor, parents: Tensor, slots: Tensor, depth: int) -> Tensor:
        """The logarithm of the mixture after each node; see `DraftSteps`."""
        logits = [session.extend(tokens, parents, slots, depth) for session in self._sessions]
        log_probs, mixed = _mixed(self._shares, slots, logits)
        self._levels.append(_Level(log_probs, tokens, parents))
        return mixed

    def observe(self, observation: Observation) -> None:
        """Share the responsibility for what the round emitted."""
        tokens, slots, count = observation.tokens, observation.slots, observation.count
        _share(self._shares, self._accepted, self._slot, self._levels, tokens, slots, count)
        last = slots.gather(1, (count - 1).clamp(min=0)[:, None])[:, 0]
        self._slot.copy_(torch.where(count > 0, last, self._slot))
        for session in self._sessions:
            session.observe(observation)


@compiled
def _mixed(shares: Tensor, slots: Tensor, logits: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Log-probabilities of every draft, `[S, B, k, V]`, and of their mixture at nodes in these slots, `[B, k, V]`."""
    # Whatever a draft returns, the other ones still count.
    finite = torch.stack([one.float().nan_to_num(_LEAST, -_LEAST, _LEAST) for one in logits])
    log_probs = finite.log_softmax(-1)
    return log_probs, (log_probs + _log_weights(shares, slots)[..., None]).logsumexp(0)


def _log_weights(shares: Tensor, slots: Tensor) -> Tensor:
    """Logarithms of the drafts' weights in slots `[*]`, `[S, *]`."""
    return (shares / shares.sum(1, keepdim=True)).log()[slots].movedim(-1, 0)


@compiled
def _share(
    shares: Tensor,
    accepted: Tensor,
    root_slot: Tensor,
    levels: Sequence[_Level],
    tokens: Tensor,
    slots: Tensor,
    count: Tensor,
) -> None:
    """Add the responsibilities for emitted tokens `[B, M]` to the shares, and count the accepted ones by source.

    They are known as far as the path leads through nodes that the drafts have read.
    """
    rows, node, known = torch.arange(len(tokens), device=tokens.device), torch.zeros_like(root_slot), count > 0
    n_slots, n_drafts = shares.shape
    before, gained, by_draft = root_slot, torch.zeros_like(shares), torch.zeros_like(accepted[:n_drafts])
    for depth, level in enumerate(levels):
        if depth > 0:
            is_next = (level.tokens == tokens[:, depth - 1, None]) & (level.parents == node[:, None])  # [B, k]
            known, node = known & is_next.any(1) & (depth < count), is_next.int().argmax(1)
            before = slots[:, depth - 1]
        found = level.log_probs[:, rows, node, tokens[:, depth]] + _log_weights(shares, before)  # [S, B]
        responsible = torch.where(known, found.softmax(0), 0)
        in_slot = before == torch.arange(n_slots, device=shares.device)[:, None]  # [slots, B]
        gained = gained + (in_slot[..., None] * responsible.T).sum(1)
        is_source = responsible.argmax(0) == torch.arange(n_drafts, device=shares.device)[:, None]  # [S, B]
        by_draft = by_draft + (is_source & known & (depth < count - 1)).sum(1)
    shares.add_(gained)
    forced = (count - 1).clamp(min=0).sum() - by_draft.sum()
    accepted.add_(torch.cat([by_draft, forced[None]]))
