"""Speculative decoding: a draft proposes, the target verifies in one pass."""

import torch
from torch import Tensor

from padrec.catalog import SemanticIDVocabulary
from padrec.decoding.decoders.decoder import LIST_SEARCH
from padrec.decoding.device.phase import Phase
from padrec.decoding.layers.runner import Prompts, TargetRunner
from padrec.decoding.lists.chosen_tokens import choose_tokens
from padrec.decoding.lists.list_request import ListRequest
from padrec.decoding.lists.recommendations import DecodingTrace, Recommendations, RoundStatistics
from padrec.decoding.rounds.list_buffer import ListBuffer
from padrec.decoding.rounds.session import Rounds
from padrec.decoding.rounds.sessions import Sessions
from padrec.decoding.rounds.settling import settle
from padrec.decoding.trees.draft import Draft, DraftContext, TreeExpansion
from padrec.decoding.trees.dynamic_tree import DynamicTree
from padrec.decoding.trees.forced import ForcedRuns

# A round continues this many leaves of its tree by forced tokens.
_FORCED_LEAVES = 4


class SpeculativeDecoder:
    """Writes the lists of `AutoregressiveDecoder` in fewer target passes.

    Args:
        draft: proposes tokens.
        expansion: how its proposals become a tree; None is a `DynamicTree` with its defaults.
        forced_tokens: continue the draft's best leaves by the tokens that the constraint forces behind them, which
            costs nodes of the tree but no pass of the draft. Without a constraint nothing is forced.
    """

    lossless = True
    search = LIST_SEARCH

    def __init__(self, draft: Draft, expansion: TreeExpansion | None = None, forced_tokens: bool = True) -> None:
        self.draft = draft
        self.expansion = expansion or DynamicTree()
        self.forced_tokens = forced_tokens
        self._sessions: Sessions | None = None

    def max_depth(self, request: ListRequest) -> int:
        """The draft's depth and the longest run of forced tokens behind it; see `Decoder.max_depth`."""
        return self.expansion.depth + self._forced_runs(request.constraint.longest_run).length

    def nodes(self, request: ListRequest) -> int:
        """Nodes that the target reads of each row in a pass: those of the tree and of the forced runs."""
        return self.expansion.nodes + self._forced_runs(request.constraint.longest_run).nodes

    def prepare(self, runner: TargetRunner, vocabulary: SemanticIDVocabulary) -> None:
        """Load the draft; see `Decoder.prepare`."""
        self.draft.prepare(runner, vocabulary)
        # At most so long are the runs of any constraint: an item's tokens but one are forced.
        runs = self._forced_runs(vocabulary.item_length - 1)
        max_depth = self.expansion.depth + runs.length
        # A round's tree lies behind the list, or the columns that keeping a path writes to.
        tree = max(self.expansion.nodes + runs.nodes, max_depth + 1)
        # New ones, since what earlier ones have recorded runs on tensors that the draft no longer has.
        room = max(tree, self.expansion.draft_rows + max_depth + 1)
        self._sessions = Sessions(self.rounds, room)

    @torch.inference_mode()
    def decode(
        self, runner: TargetRunner, prompts: Prompts, request: ListRequest, generator: torch.Generator
    ) -> tuple[Recommendations, DecodingTrace]:
        """Write one list for each prompt; see `Decoder.decode`."""
        if self._sessions is None:
            raise RuntimeError("the draft is not ready yet: call prepare first")
        return self._sessions.decode(runner, prompts, request, generator)

    def rounds(self, runner: TargetRunner, request: ListRequest, batch: int, capacity: int) -> Rounds:
        """What `decode` runs for batches of this size; `capacity` is in tokens: prompt, list and one round's tree."""
        runs = self._forced_runs(request.constraint.longest_run)
        return _SpeculativeRounds(runner, request, batch, capacity, self.draft, self.expansion, runs)

    def _forced_runs(self, longest: int) -> ForcedRuns:
        return ForcedRuns(min(_FORCED_LEAVES, self.expansion.leaves), longest if self.forced_tokens else 0)


class _SpeculativeRounds:
    """See `Rounds`: a round is a draft phase, a target pass and acceptance."""

    def __init__(
        self,
        runner: TargetRunner,
        request: ListRequest,
        batch: int,
        capacity: int,
        draft: Draft,
        expansion: TreeExpansion,
        runs: ForcedRuns,
    ) -> None:
        self._runner, self._request, self._capacity = runner, request, capacity
        self._draft, self._expansion, self._runs = draft, expansion, runs
        self._max_depth = expansion.depth + runs.length
        self.most_tokens = self._max_depth + 1
        device = runner.model.device
        self.lists = ListBuffer(request, batch, device)
        self.statistics = RoundStatistics(batch, request.vocabulary.n_slot_states, self._max_depth, device)

    def start(self, prompts: Prompts, keys: Tensor) -> None:
        """See `Rounds.start`."""
        logits, features = self._runner.prefill(prompts, extra=self._capacity - prompts.tokens.shape[1])
        self.statistics.reset()
        self.lists.begin(logits, keys)
        self._draft.begin(
            DraftContext(
                runner=self._runner,
                prompts=prompts,
                features=features,
                first=self.lists.last,
                first_slot=self.lists.state.slot,
                expansion=self._expansion,
                max_depth=self._max_depth,
                capacity=self._capacity,
            )
        )

    def round(self) -> None:
        """See `Rounds.round`."""
        lists, constraint = self.lists, self._request.constraint
        with Phase.SETTLING.named():
            choice = lists.choice(self._max_depth)
        with Phase.TREE_BUILDING.named():
            tree = self._draft.propose(lists.last, lists.state, constraint, choice, self._expansion)
            tree = self._runs.extend(tree, constraint)
        with Phase.TARGET_PASS.named():
            logits, features = self._runner.verify(tree)
        with Phase.SETTLING.named():
            chosen = choose_tokens(logits, tree.states, tree.depths, choice, constraint)
            settled = settle(tree, chosen, lists, self.statistics, self._expansion)
        with Phase.KEEPING.named():
            self._runner.commit(settled.path, settled.count)
            self._draft.observe(settled.observation(features))
