"""The reference: one target pass for each token."""

import torch
from torch import Tensor

from padrec.catalog import SemanticIDVocabulary
from padrec.decoding.decoders.decoder import LIST_SEARCH
from padrec.decoding.decoders.speculative import SpeculativeDecoder
from padrec.decoding.device.phase import Phase
from padrec.decoding.layers.runner import Prompts, TargetRunner
from padrec.decoding.lists.chosen_tokens import choose_tokens
from padrec.decoding.lists.list_request import ListRequest
from padrec.decoding.lists.recommendations import DecodingTrace, Recommendations, RoundStatistics
from padrec.decoding.lists.token_tree import TokenTree
from padrec.decoding.rounds.list_buffer import ListBuffer
from padrec.decoding.rounds.session import Rounds
from padrec.decoding.rounds.sessions import Sessions
from padrec.decoding.rounds.settling import settle
from padrec.decoding.trees.catalog_draft import CatalogDraft
from padrec.decoding.trees.forced import RootOnly


class AutoregressiveDecoder:
    """Writes lists token by token; what it writes is what a lossless decoder must write.

    Args:
        forced_tokens: give no target pass of its own to a token that the constraint forces. A pass then reads the last
            token together with the forced ones behind it, which is speculation without a draft.
    """

    lossless = True
    search = LIST_SEARCH

    def __init__(self, forced_tokens: bool = False) -> None:
        self._forced = SpeculativeDecoder(CatalogDraft(), RootOnly()) if forced_tokens else None
        self._sessions = Sessions(self.rounds, room=0)

    def max_depth(self, request: ListRequest) -> int:
        """Forced tokens that a pass may read; 0 where each has a pass of its own."""
        return self._forced.max_depth(request) if self._forced else 0

    def prepare(self, runner: TargetRunner, vocabulary: SemanticIDVocabulary) -> None:
        """Nothing beside the target is needed; see `Decoder.prepare`."""
        if self._forced:
            self._forced.prepare(runner, vocabulary)

    @torch.inference_mode()
    def decode(
        self, runner: TargetRunner, prompts: Prompts, request: ListRequest, generator: torch.Generator
    ) -> tuple[Recommendations, DecodingTrace]:
        """Write one list for each prompt; see `Decoder.decode`."""
        if self._forced:
            return self._forced.decode(runner, prompts, request, generator)
        return self._sessions.decode(runner, prompts, request, generator)

    def rounds(self, runner: TargetRunner, request: ListRequest, batch: int, capacity: int) -> Rounds:
        """What `decode` runs for batches of this size; see `SpeculativeDecoder.rounds`."""
        if self._forced:
            return self._forced.rounds(runner, request, batch, capacity)
        return _AutoregressiveRounds(runner, request, batch, capacity)


class _AutoregressiveRounds:
    """See `Rounds`: a round is a pass."""

    most_tokens = 1

    def __init__(self, runner: TargetRunner, request: ListRequest, batch: int, capacity: int) -> None:
        self._runner = runner
        self._request = request
        self._capacity = capacity
        self._expansion = RootOnly()
        device = runner.model.device
        self.lists = ListBuffer(request, batch, device)
        self.statistics = RoundStatistics(batch, request.vocabulary.n_slot_states, 0, device)

    def start(self, prompts: Prompts, keys: Tensor) -> None:
        """See `Rounds.start`."""
        logits, _ = self._runner.prefill(prompts, extra=self._capacity - prompts.tokens.shape[1])
        self.statistics.reset()
        self.lists.begin(logits, keys)

    def round(self) -> None:
        """See `Rounds.round`."""
        with Phase.TREE_BUILDING.named():
            tree = TokenTree.root_only(self.lists.last, self.lists.state)
        with Phase.TARGET_PASS.named():
            logits, _ = self._runner.verify(tree)
        with Phase.SETTLING.named():
            choice = self.lists.choice(0)
            chosen = choose_tokens(logits, tree.states, tree.depths, choice, self._request.constraint)
            settled = settle(tree, chosen, self.lists, self.statistics, self._expansion)
        with Phase.KEEPING.named():
            self._runner.commit(settled.path, settled.count)
