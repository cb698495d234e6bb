"""The reference: one target pass for each token."""

import torch

from padrec.catalog import SemanticIDVocabulary
from padrec.decoding.decoder import ListBuffer, ListRequest, Stopwatch
from padrec.decoding.recommendations import DecodingTrace, Recommendations, RoundStatistics
from padrec.decoding.runner import Prompts, TargetRunner
from padrec.decoding.token_tree import TokenTree


class AutoregressiveDecoder:
    """Writes lists token by token; what it writes is what a lossless decoder must write."""

    lossless = True
    max_depth = 0

    def prepare(self, runner: TargetRunner, vocabulary: SemanticIDVocabulary) -> None:
        """Nothing beside the target is needed."""

    @torch.inference_mode()
    def decode(
        self, runner: TargetRunner, prompts: Prompts, request: ListRequest, generator: torch.Generator
    ) -> tuple[Recommendations, DecodingTrace]:
        """Write one list for each prompt; see `Decoder.decode`."""
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
            chosen, log_probs = lists.choose(logits, tree.states, tree.depths, 0)
            runner.commit(tree.parents, one)
            lists.append(chosen, log_probs, one)
            lists.last = chosen[:, 0]
            lists.state = request.constraint.advance(tree.states, chosen).squeeze()
        return lists.recommendations(), statistics.trace(prefill_seconds, watch.lap(), lists.lengths)
