"""The reference: one target pass for each token."""

import torch

from padrec.catalog import SemanticIDVocabulary
from padrec.decoding.decoder import ListBuffer, ListRequest, Stopwatch
from padrec.decoding.forced import ForcedDraft, RootOnly
from padrec.decoding.recommendations import DecodingTrace, Recommendations, RoundStatistics
from padrec.decoding.runner import Prompts, TargetRunner
from padrec.decoding.speculative import SpeculativeDecoder
from padrec.decoding.token_tree import TokenTree


class AutoregressiveDecoder:
    """Writes lists token by token; what it writes is what a lossless decoder must write.

    Args:
        forced_tokens: give no target pass of its own to a token that the constraint forces. A pass then reads the last
            token together with the forced ones behind it, which is speculation without a draft.
    """

    lossless = True

    def __init__(self, forced_tokens: bool = False) -> None:
        self._forced = SpeculativeDecoder(ForcedDraft(), RootOnly()) if forced_tokens else None

    @property
    def max_depth(self) -> int:
        """Forced tokens that a pass may read; 0 where each has a pass of its own."""
        return self._forced.max_depth if self._forced else 0

    def prepare(self, runner: TargetRunner, vocabulary: SemanticIDVocabulary) -> None:
        """Nothing beside the target is needed."""

    @torch.inference_mode()
    def decode(
        self, runner: TargetRunner, prompts: Prompts, request: ListRequest, generator: torch.Generator
    ) -> tuple[Recommendations, DecodingTrace]:
        """Write one list for each prompt; see `Decoder.decode`."""
        if self._forced:
            return self._forced.decode(runner, prompts, request, generator)
        device = prompts.tokens.device
        watch = Stopwatch(device)
        logits, _ = runner.prefill(prompts, extra=request.n_tokens)
        lists = ListBuffer(request, logits, generator)
        statistics = RoundStatistics(len(prompts.tokens), request.vocabulary.n_slot_states, 0, device)
        prefill_seconds = watch.lap()
        one = torch.ones_like(lists.lengths)
        # A list under the catalog constraint has a fixed length: nothing needs to be asked of the device.
        for _ in range(request.n_tokens - 1):
            active = ~lists.finished
            statistics.add_round(active, draft_passes=0)
            tree = TokenTree.root_only(lists.last, lists.state)
            logits, _ = runner.verify(tree)
            chosen, log_probs = lists.choose(logits, tree.states, tree.depths, lists.choice(0))
            runner.commit(tree.parents, one)
            lists.append(chosen, log_probs, one)
            lists.last = chosen[:, 0]
            lists.state = request.constraint.advance(tree.states, chosen).squeeze()
        return lists.recommendations(), statistics.trace(prefill_seconds, watch.lap(), lists.lengths)
