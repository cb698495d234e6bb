"""Many prompts in batches of a size that suits the device."""

from dataclasses import dataclass, replace

import torch

from padrec.catalog import InputError
from padrec.decoding.decoders.decoder import Decoder
from padrec.decoding.decoders.wrapping import WrappingDecoder
from padrec.decoding.device.stopwatch import Stopwatch
from padrec.decoding.layers.prompts import Prompts
from padrec.decoding.layers.runner import TargetRunner
from padrec.decoding.lists.decoding_trace import DecodingTrace
from padrec.decoding.lists.request import ListRequest, Recommendations
from padrec.decoding.rounds.decoding_session import DecodingSession


class BatchwiseDecoder(WrappingDecoder):
    """Decodes a large batch a few prompts at a time; the lists are those of all prompts at once, sampled ones too.

    Args:
        decoder: what decodes a batch.
        batch_size: prompts in a batch, at least 1; the last one of a decode may have fewer.

    Raises:
        InputError: a batch size of less than 1.
    """

    def __init__(self, decoder: Decoder, batch_size: int) -> None:
        if batch_size < 1:
            raise InputError(f"batch_size {batch_size}: expected at least 1")
        super().__init__(decoder)
        self._batch_size = batch_size

    def bind(self, runner: TargetRunner, request: ListRequest) -> DecodingSession[Recommendations]:
        """See `Decoder.bind`."""
        return _BatchwiseSession(self._decoder.bind(runner, request), self._batch_size)


@dataclass(frozen=True)
class _BatchwiseSession:
    """See `DecodingSession`."""

    session: DecodingSession[Recommendations]
    batch_size: int

    def decode(self, prompts: Prompts, generator: torch.Generator) -> tuple[Recommendations, DecodingTrace]:
        """See `DecodingSession.decode`. What passes between two batches counts as decoding."""
        watch = Stopwatch(prompts.tokens.device)
        parts = [self.session.decode(batch, generator) for batch in prompts.batches(self.batch_size)]
        trace = DecodingTrace.joined([trace for _, trace in parts])
        decode_seconds = watch.lap() - trace.prefill_seconds - trace.recording_seconds
        return Recommendations.joined([lists for lists, _ in parts]), replace(trace, decode_seconds=decode_seconds)
