"""What another batch size changes in low precision."""

from dataclasses import replace

import torch

from padrec.catalog import InputError
from padrec.decoding.decoders.decoder import Decoder
from padrec.decoding.decoders.wrapping import WrappingDecoder
from padrec.decoding.layers.runner import Prompts, TargetRunner
from padrec.decoding.lists.list_request import ListRequest
from padrec.decoding.lists.recommendations import DecodingTrace, Recommendations


class RepeatedDecoder(WrappingDecoder):
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
        super().__init__(decoder)
        self._copies = copies

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
