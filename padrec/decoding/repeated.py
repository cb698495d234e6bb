"""What another batch size changes in low precision."""

from dataclasses import replace

import torch

from padrec.catalog import InputError, SemanticIDVocabulary
from padrec.decoding.decoder import Decoder, ListRequest
from padrec.decoding.recommendations import DecodingTrace, Recommendations
from padrec.decoding.runner import Prompts, TargetRunner


class RepeatedDecoder:
    """Decodes every prompt several times at once and returns what its first copy wrote.

    The other copies change nothing but the size of the batch. In low precision that alone can change lists, because
    sums are added up in another order: the share of other lists that this arm shows is what numerics do to any arm.

    Args:
        decoder: what decodes.
        copies: rows for each prompt, at least 2.

    Raises:
        InputError: fewer than two copies.
    """

    def __init__(self, decoder: Decoder, copies: int = 2) -> None:
        if copies < 2:
            raise InputError(f"copies {copies}: expected at least 2")
        self._decoder = decoder
        self._copies = copies

    @property
    def lossless(self) -> bool:
        """See `Decoder.lossless`."""
        return self._decoder.lossless

    @property
    def search(self) -> str:
        """See `Decoder.search`."""
        return self._decoder.search

    def max_depth(self, request: ListRequest) -> int:
        """See `Decoder.max_depth`."""
        return self._decoder.max_depth(request)

    def prepare(self, runner: TargetRunner, vocabulary: SemanticIDVocabulary) -> None:
        """See `Decoder.prepare`."""
        self._decoder.prepare(runner, vocabulary)

    def decode(
        self, runner: TargetRunner, prompts: Prompts, request: ListRequest, generator: torch.Generator
    ) -> tuple[Recommendations, DecodingTrace]:
        """Write one list for each prompt; see `Decoder.decode`. Proposals are counted over all copies."""
        # The copies stand behind the prompts, so that these get the random keys that they get without copies.
        repeated = Prompts(
            prompts.tokens.repeat(self._copies, 1),
            prompts.slots.repeat(self._copies, 1),
            prompts.lengths.repeat(self._copies),
        )
        lists, trace = self._decoder.decode(runner, repeated, request, generator)
        n = len(prompts.tokens)
        first = Recommendations(lists.leaves[:n], lists.tokens[:n], lists.log_probs[:n])
        target_passes, draft_passes, tokens = trace.target_passes[:n], trace.draft_passes[:n], trace.tokens[:n]
        return first, replace(trace, target_passes=target_passes, draft_passes=draft_passes, tokens=tokens)
