"""A speculative round: draft phase, target pass, acceptance."""

from collections.abc import Sequence
from typing import cast

from torch import Tensor

from padrec.decoding.device.stopwatch import Phase
from padrec.decoding.layers.prompts import Prompts
from padrec.decoding.layers.runner import TransformersSession
from padrec.decoding.lists.catalog_constraint import CatalogConstraint
from padrec.decoding.lists.decoding_trace import RoundStatistics
from padrec.decoding.lists.verification import VerificationRule
from padrec.decoding.rounds.acceptance import verify_round
from padrec.decoding.rounds.list_buffer import ListBuffer
from padrec.decoding.trees.draft import (
    DraftPlan,
    DraftSession,
    HostDraftSession,
    Observation,
    OnlineDraftSession,
    SourcesDraftSession,
)
from padrec.decoding.trees.tree_expansion import TreeContext, TreeExpansion
from padrec.decoding.trees.tree_operations import ForcedRuns, tree_operations_for


class Rounds:
    """Writes the lists of one batch after another in the same tensors.

    `start` and `round` can be captured; see `CapturedGraph`. Target and draft are opened for the plan.

    Attributes:
        lists: the lists of the batch.
        statistics: what its rounds cost.
        most_tokens: the most tokens that a round adds to a list.
        on_host: whether `look_up` must be called before every round.
        learns: whether `next_batch` must be called before every batch.
        sources: what proposes, for drafts of several sources.
        accepted: accepted tokens of the batch by source, int64 `[S]`.
    """

    def __init__(
        self,
        plan: DraftPlan,
        target: TransformersSession,
        draft: DraftSession,
        expansion: TreeExpansion,
        runs: ForcedRuns,
        rule: VerificationRule,
    ) -> None:
        request, model = plan.request, plan.runner.model
        self._expansion, self._runs = expansion, runs
        self._rule = rule.open(plan.batch, model.device)
        self._constraint, self._max_depth = request.constraint, plan.max_depth
        self._operations = tree_operations_for(model.device, model.dtype, request.constraint)
        self._target, self._draft = target, draft
        self.lists = ListBuffer(request, plan.batch, model.device)
        self.statistics = RoundStatistics(plan.batch, request.n_slot_states, plan.max_depth, model.device)
        self.most_tokens = plan.max_depth + 1
        self.on_host = isinstance(self._draft, HostDraftSession)
        self.learns = isinstance(self._draft, OnlineDraftSession)
        self.sources: Sequence[str] = ()
        self.accepted = self.lists.keys[:0]
        if isinstance(draft, SourcesDraftSession):
            self.sources, self.accepted = draft.sources, draft.accepted

    def start(self, prompts: Prompts, keys: Tensor) -> None:
        """Read the prompts and begin new lists, with the requests' random keys, int64 `[B]`."""
        logits, features = self._target.prefill(prompts)
        self.statistics.reset()
        self._rule.begin()
        if prompts.excluded is not None:
            cast(CatalogConstraint, self._constraint).exclude(prompts.excluded)
        self.lists.begin(logits, keys)
        self._draft.begin(prompts, features, self.lists.last, self.lists.state.slot)

    def next_batch(self, prompts: Prompts) -> None:
        """Let the draft learn from the last batch before `start`, which may be captured."""
        assert isinstance(self._draft, OnlineDraftSession)
        self._draft.next_batch(prompts)

    def look_up(self, prompts: Prompts) -> None:
        """Let the draft prepare the next round on the host; waits for the device."""
        assert isinstance(self._draft, HostDraftSession)
        read, written = (
            [row[:length] for row, length in zip(tokens.tolist(), lengths.tolist(), strict=True)]
            for tokens, lengths in ((prompts.tokens, prompts.lengths), (self.lists.tokens, self.lists.lengths))
        )
        self._draft.look_up([before + after for before, after in zip(read, written, strict=True)])

    def round(self) -> None:
        """Continue every unfinished list."""
        lists, constraint, operations = self.lists, self._constraint, self._operations
        with Phase.ACCEPTANCE.named():
            choice = lists.choice(self._max_depth)
        with Phase.TREE_BUILDING.named():
            context = TreeContext(lists.last, lists.state, constraint, choice, self._draft, operations)
            tree = self._expansion.expand(context)
            tree = self._runs.extend(tree, constraint, operations)
        with Phase.TARGET_PASS.named():
            logits, features = self._target.verify(tree)
        with Phase.ACCEPTANCE.named():
            accepted = verify_round(logits, tree, choice, self._rule, lists, self.statistics, self._expansion)
        with Phase.KEEPING.named():
            self._target.commit(accepted.path, accepted.count)
            self._draft.observe(Observation(**vars(accepted), node_features=features))
