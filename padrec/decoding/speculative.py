"""Speculative decoding: a draft proposes, the target verifies in one pass."""

import torch
from torch import Tensor

from padrec.catalog import SemanticIDVocabulary
from padrec.decoding.chosen_tokens import ChosenTokens, choose_tokens
from padrec.decoding.compiled import compiled
from padrec.decoding.decoder import LIST_SEARCH, ListBuffer, ListRequest
from padrec.decoding.draft import Draft, DraftContext, Observation, TreeExpansion
from padrec.decoding.dynamic_tree import DynamicTree
from padrec.decoding.forced import ForcedRuns
from padrec.decoding.phase import Phase
from padrec.decoding.recommendations import DecodingTrace, Recommendations, RoundStatistics
from padrec.decoding.row_copy import RowCopy
from padrec.decoding.runner import Prompts, TargetRunner
from padrec.decoding.session import Rounds
from padrec.decoding.sessions import Sessions, check_rows
from padrec.decoding.token_tree import TokenTree
from padrec.decoding.verification import verify

# A round continues this many leaves of its tree by forced tokens.
_FORCED_LEAVES = 4


class SpeculativeDecoder:
    """Writes the lists of `AutoregressiveDecoder` in fewer target passes.

    Args:
        draft: proposes tokens.
        expansion: how its proposals become a tree; None is a `DynamicTree` with its defaults.
        forced_tokens: continue the draft's best leaves by the tokens that the constraint forces behind them, which
            costs nodes of the tree but no pass of the draft. Without a constraint nothing is forced.
        rows: decode larger batches in so many rows, each of which begins another list when one is finished; None has a
            row for every prompt.

    Raises:
        InputError: fewer than two rows.
    """

    lossless = True
    search = LIST_SEARCH

    def __init__(
        self,
        draft: Draft,
        expansion: TreeExpansion | None = None,
        forced_tokens: bool = True,
        rows: int | None = None,
    ) -> None:
        check_rows(rows)
        self.draft = draft
        self.expansion = expansion or DynamicTree()
        self.forced_tokens = forced_tokens
        self.rows = rows
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
        self._sessions = Sessions(self.rounds, room, self.rows)

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
            path, seen = _settle(features, tree, chosen, lists, self.statistics, self._expansion)
        with Phase.KEEPING.named():
            self._runner.commit(path, seen.count)
            self._draft.observe(seen)

    def refill(self, rows: RowCopy, batch: int, capacity: int) -> None:
        """See `Rounds.refill`."""
        self._runner.refill(rows, batch, capacity)
        self._draft.refill(rows, batch, capacity)


@compiled
def _settle(
    features: Tensor,
    tree: TokenTree,
    chosen: ChosenTokens,
    lists: ListBuffer,
    statistics: RoundStatistics,
    expansion: TreeExpansion,
) -> tuple[Tensor, Observation]:
    """Add what the target keeps of a tree to the lists; returns the path kept `[B, D + 1]` and what a draft learns."""
    active = ~lists.finished
    statistics.add_round(active, expansion.draft_passes)
    outcome = verify(tree, chosen.tokens)
    count = lists.append(outcome.emitted, chosen.log_probs.gather(1, outcome.path), outcome.count + 1)
    # Move the lists behind their new last token.
    states = chosen.states.gather(outcome.path)
    last = (count - 1).clamp(min=0)[:, None]
    lists.last.copy_(torch.where(count > 0, outcome.emitted.gather(1, last)[:, 0], lists.last))
    # Rows that have ended are never read again, so their states may be anything.
    lists.state.copy_(states.gather(last).squeeze())
    kept = torch.minimum(outcome.count, count)
    # Where the walk ended for want of the right proposal, that depth was missed, be it that the tree held other
    # tokens there or none: a tree that prunes must not look better than one that guesses. Deeper than the draft
    # could go nothing is missed.
    missed = (count > outcome.count) & (outcome.count < expansion.depth)
    statistics.add_proposals(states.slot[:, :-1], kept, kept + missed, active)
    at = outcome.path[..., None].expand(-1, -1, features.shape[-1])
    return outcome.path, Observation(features.gather(1, at), outcome.emitted, states.slot, count)
