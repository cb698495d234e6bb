"""Speculative decoding: a draft proposes, the target verifies in one pass."""

from functools import partial
from typing import Any, TypeVar, cast

from torch import Tensor

from padrec.decoding.decoders.decoder import LIST_SEARCH, Decoder
from padrec.decoding.device.phase import Phase
from padrec.decoding.layers.prompts import Prompts
from padrec.decoding.layers.runner import TargetRunner
from padrec.decoding.lists.catalog_constraint import CatalogConstraint
from padrec.decoding.lists.decoding_trace import RoundStatistics
from padrec.decoding.lists.request import Request
from padrec.decoding.lists.verification import ExactVerification, VerificationRule
from padrec.decoding.rounds.acceptance import accept_round
from padrec.decoding.rounds.decoding_session import DecodingSession, SessionsByShape
from padrec.decoding.rounds.list_buffer import ListBuffer
from padrec.decoding.rounds.session import Rounds, ShapeSession
from padrec.decoding.trees.draft import Draft, DraftPlan, HostDraftSession
from padrec.decoding.trees.dynamic_tree import DynamicTree
from padrec.decoding.trees.forced_runs import ForcedRuns
from padrec.decoding.trees.tree_expansion import TreeExpansion
from padrec.decoding.trees.tree_operations import tree_operations_for

R = TypeVar("R")

# A round continues this many leaves of its tree by forced tokens.
_FORCED_LEAVES = 4


class SpeculativeDecoder(Decoder):
    """Generates what `AutoregressiveDecoder` does in fewer target passes.

    Args:
        draft: proposes tokens.
        expansion: how its proposals become a tree; None is a `DynamicTree` with its defaults.
        forced_tokens: continue the draft's best leaves by the tokens that the constraint forces after them, which
            costs nodes of the tree but no pass of the draft. Without a constraint nothing is forced.
        verification: which tokens a round emits; None is `ExactVerification`, which changes nothing.
    """

    search = LIST_SEARCH

    def __init__(
        self,
        draft: Draft,
        expansion: TreeExpansion | None = None,
        forced_tokens: bool = True,
        verification: VerificationRule | None = None,
    ) -> None:
        self.draft = draft
        self.expansion = expansion or DynamicTree()
        self.forced_tokens = forced_tokens
        self.verification = verification or ExactVerification()
        self.lossless = self.verification.lossless

    def max_depth(self, request: Request[Any]) -> int:
        """The draft's depth and the longest run of forced tokens after it; see `Decoder.max_depth`."""
        return self.expansion.depth + self._forced_runs(request).length

    def nodes(self, request: Request[Any]) -> int:
        """Nodes that the target reads of each row in a pass: those of the tree and of the forced runs."""
        return self.expansion.nodes + self._forced_runs(request).nodes

    def bind(self, runner: TargetRunner, request: Request[R]) -> DecodingSession[R]:
        """Load the draft; see `Decoder.bind`."""
        self.draft.prepare(runner, request)
        max_depth = self.max_depth(request)
        # A round's tree lies after the list, or the columns that keeping a path writes to, or the draft's own nodes.
        tree = max(self.nodes(request), max_depth + 1, self.expansion.draft_rows + max_depth + 1)
        return SessionsByShape(partial(self._session, runner, request), request.n_tokens + tree)

    def _session(
        self, runner: TargetRunner, request: Request[R], batch: int, capacity: int, excludes: bool
    ) -> DecodingSession[R]:
        request = request.excluding(batch) if excludes else request
        rounds = self.rounds(runner, request, batch, capacity)
        return ShapeSession(rounds, request, runner.model.device)

    def rounds(self, runner: TargetRunner, request: Request[Any], batch: int, capacity: int) -> Rounds:
        """What a session runs for batches of this size; `capacity` is in tokens: prompt, list and one round's tree."""
        return _SpeculativeRounds(self, runner, request, batch, capacity, self._forced_runs(request))

    def _forced_runs(self, request: Request[Any]) -> ForcedRuns:
        length = request.constraint.longest_run if self.forced_tokens else 0
        return ForcedRuns(min(_FORCED_LEAVES, self.expansion.leaves), length)


class _SpeculativeRounds:
    """See `Rounds`: a round is a draft phase, a target pass and acceptance."""

    def __init__(
        self,
        decoder: SpeculativeDecoder,
        runner: TargetRunner,
        request: Request[Any],
        batch: int,
        capacity: int,
        runs: ForcedRuns,
    ) -> None:
        self._expansion, self._rule, self._runs = decoder.expansion, decoder.verification, runs
        self._constraint = request.constraint
        self._max_depth = decoder.max_depth(request)
        self.most_tokens = self._max_depth + 1
        device = runner.model.device
        self._operations = tree_operations_for(device, runner.model.dtype, request.constraint)
        self._target = runner.open(batch, capacity, decoder.draft.feature_layers)
        rows = max(1, self._expansion.draft_rows)
        self._draft = decoder.draft.open(DraftPlan(runner, request, batch, capacity, rows, self._max_depth))
        self.on_host = isinstance(self._draft, HostDraftSession)
        self.lists = ListBuffer(request, batch, device)
        self.statistics = RoundStatistics(batch, request.n_slot_states, self._max_depth, device)

    def start(self, prompts: Prompts, keys: Tensor) -> None:
        """See `Rounds.start`."""
        logits, features = self._target.prefill(prompts)
        self.statistics.reset()
        if prompts.excluded is not None:
            cast(CatalogConstraint, self._constraint).exclude(prompts.excluded)
        self.lists.begin(logits, keys)
        self._draft.begin(prompts, features, self.lists.last, self.lists.state.slot)

    def look_up(self, prompts: Prompts) -> None:
        """See `Rounds.look_up`."""
        assert isinstance(self._draft, HostDraftSession)
        read, written = (
            [row[:length] for row, length in zip(tokens.tolist(), lengths.tolist(), strict=True)]
            for tokens, lengths in ((prompts.tokens, prompts.lengths), (self.lists.tokens, self.lists.lengths))
        )
        self._draft.look_up([before + after for before, after in zip(read, written, strict=True)])

    def round(self) -> None:
        """See `Rounds.round`."""
        lists, constraint, statistics = self.lists, self._constraint, self.statistics
        with Phase.ACCEPTANCE.named():
            choice = lists.choice(self._max_depth)
        with Phase.TREE_BUILDING.named():
            tree = self._expansion.expand(lists.last, lists.state, constraint, choice, self._draft, self._operations)
            tree = self._runs.extend(tree, constraint, self._operations)
        with Phase.TARGET_PASS.named():
            logits, features = self._target.verify(tree)
        with Phase.ACCEPTANCE.named():
            chosen = self._rule.emit(tree, logits, choice, constraint)
            accepted = accept_round(
                chosen.tokens, chosen.log_probs, chosen.states, tree, lists, statistics, self._expansion
            )
        with Phase.KEEPING.named():
            self._target.commit(accepted.path, accepted.count)
            self._draft.observe(accepted.observation(features))
