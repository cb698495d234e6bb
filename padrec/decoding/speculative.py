"""Speculative decoding: a draft proposes, the target verifies in one pass."""

import torch
from torch import Tensor

from padrec.catalog import SemanticIDVocabulary
from padrec.decoding.decoder import ListBuffer, ListRequest, Stopwatch
from padrec.decoding.draft import Draft, DraftContext, Observation, TreeExpansion
from padrec.decoding.dynamic_tree import DynamicTree
from padrec.decoding.forced import ForcedRuns
from padrec.decoding.recommendations import DecodingTrace, Recommendations, RoundStatistics
from padrec.decoding.runner import Prompts, TargetRunner
from padrec.decoding.token_tree import TokenTree
from padrec.decoding.verification import Acceptance, verify

# A round continues this many leaves of its tree by forced tokens …
_FORCED_LEAVES = 4
# … and at most this many behind each: those of an item of four slots with its separator, the usual size.
_FORCED_LENGTH = 4


class SpeculativeDecoder:
    """Writes the lists of `AutoregressiveDecoder` in fewer target passes.

    Args:
        draft: proposes tokens.
        expansion: how its proposals become a tree; None is a `DynamicTree` with its defaults.
        forced_tokens: continue the draft's best leaves by the tokens that the constraint forces behind them, which
            costs nodes of the tree but no pass of the draft. Without a constraint nothing is forced.
    """

    lossless = True

    def __init__(self, draft: Draft, expansion: TreeExpansion | None = None, forced_tokens: bool = True) -> None:
        self.draft = draft
        self.expansion = expansion or DynamicTree()
        self.forced_tokens = forced_tokens

    @property
    def max_depth(self) -> int:
        """Bound of the depth of proposals: the draft's, and the longest run of forced tokens behind it."""
        return self.expansion.depth + (_FORCED_LENGTH if self.forced_tokens else 0)

    def prepare(self, runner: TargetRunner, vocabulary: SemanticIDVocabulary) -> None:
        """Load the draft; see `Decoder.prepare`."""
        self.draft.prepare(runner, vocabulary)

    @torch.inference_mode()
    def decode(
        self, runner: TargetRunner, prompts: Prompts, request: ListRequest, generator: torch.Generator
    ) -> tuple[Recommendations, DecodingTrace]:
        """Write one list for each prompt; see `Decoder.decode`."""
        device = prompts.tokens.device
        watch = Stopwatch(device)
        expansion, runs = self.expansion, self._forced_runs(request)
        max_depth = expansion.depth + runs.length
        # Keeping a path writes a column for each level, of which a small tree may have more than nodes.
        room = max(expansion.nodes + runs.nodes, max_depth + 1)
        logits, features = runner.prefill(prompts, extra=request.n_tokens + room)
        lists = ListBuffer(request, logits, generator)
        statistics = RoundStatistics(len(prompts.tokens), request.vocabulary.n_slot_states, max_depth, device)
        prefill_seconds = watch.lap()
        first, slot = lists.last, lists.state.slot
        self.draft.begin(DraftContext(runner, prompts, features, first, slot, request.n_tokens, expansion, max_depth))
        # The question whether every list has ended is the one synchronisation of a round.
        while not bool(lists.finished.all()):
            self._round(runner, request, runs, lists, statistics)
        return lists.recommendations(), statistics.trace(prefill_seconds, watch.lap(), lists.lengths)

    def _forced_runs(self, request: ListRequest) -> ForcedRuns:
        length = min(_FORCED_LENGTH, request.constraint.longest_run) if self.forced_tokens else 0
        return ForcedRuns(min(_FORCED_LEAVES, self.expansion.leaves), length)

    def _round(
        self,
        runner: TargetRunner,
        request: ListRequest,
        runs: ForcedRuns,
        lists: ListBuffer,
        statistics: RoundStatistics,
    ) -> None:
        active = ~lists.finished
        statistics.add_round(active, self.expansion.draft_passes)
        choice = lists.choice(self.expansion.depth + runs.length)
        tree = self.draft.propose(lists.last, lists.state, request.constraint, choice, self.expansion)
        tree = runs.extend(tree, request.constraint)
        logits, features = runner.verify(tree)
        chosen, log_probs = lists.choose(logits, tree.states, tree.depths, choice)
        outcome = verify(tree, chosen)
        count = lists.append(outcome.emitted, log_probs.gather(1, outcome.path), outcome.count + 1)
        runner.commit(outcome.path, count)
        slots = self._advance(request, lists, tree, outcome, count)
        self._count(statistics, outcome, slots, count, active)
        kept = outcome.path[..., None].expand(-1, -1, features.shape[-1])
        self.draft.observe(Observation(features.gather(1, kept), outcome.emitted, slots, count))

    @staticmethod
    def _advance(
        request: ListRequest, lists: ListBuffer, tree: TokenTree, outcome: Acceptance, count: Tensor
    ) -> Tensor:
        """Move the lists behind their new last token; returns the slots of the emitted tokens, `[B, D + 1]`."""
        path_states = tree.states.gather(outcome.path)
        states = request.constraint.advance(path_states, outcome.emitted)
        last = (count - 1).clamp(min=0)[:, None]
        lists.last = torch.where(count > 0, outcome.emitted.gather(1, last)[:, 0], lists.last)
        # Rows that have ended are never read again, so their states may be anything.
        lists.state = states.gather(last).squeeze()
        return states.slot

    def _count(
        self, statistics: RoundStatistics, outcome: Acceptance, slots: Tensor, count: Tensor, active: Tensor
    ) -> None:
        kept = torch.minimum(outcome.count, count)
        # Where the walk ended for want of the right proposal, that depth was missed, be it that the tree held other
        # tokens there or none: a tree that prunes must not look better than one that guesses. Deeper than the draft
        # could go nothing is missed.
        missed = (count > outcome.count) & (outcome.count < self.expansion.depth)
        statistics.add_proposals(slots[:, :-1], kept, kept + missed, active)
