"""Decoders that run another decoder on other batches: smaller ones, or with every prompt repeated."""

from abc import abstractmethod
from dataclasses import replace
from typing import Annotated, Any

import torch

from padrec.catalog import PositiveInt, Range, check_arguments
from padrec.decoding.decoders.decoder import Decoder
from padrec.decoding.device.stopwatch import Stopwatch
from padrec.decoding.layers.prompts import Prompts
from padrec.decoding.layers.runner import TransformersRunner
from padrec.decoding.lists.decoding_trace import DecodingTrace
from padrec.decoding.lists.not_finite_error import NotFiniteError
from padrec.decoding.lists.request import ListRequest, Recommendations
from padrec.decoding.lists.sampling import Sampling
from padrec.decoding.rounds.decoding_session import DecodingSession

_MOST_COPIES = 64

_Session = DecodingSession[Recommendations]


class WrappingDecoder(Decoder):
    """Passes all work to another decoder, whose search and losslessness it shares."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self.lossless, self.search, self.sources = decoder.lossless, decoder.search, decoder.sources

    @property
    def facts(self) -> dict[str, Any]:
        """See `Decoder`."""
        return self._decoder.facts

    def max_depth(self, request: ListRequest) -> int:
        """See `Decoder.max_depth`."""
        return self._decoder.max_depth(request)

    def bind(self, runner: TransformersRunner, request: ListRequest) -> _Session:
        """See `Decoder.bind`."""
        return _WrappingSession(self, self._decoder.bind(runner, request))

    @abstractmethod
    def decode(
        self, session: _Session, prompts: Prompts, generator: torch.Generator
    ) -> tuple[Recommendations, DecodingTrace]:
        """Decode a batch by the wrapped decoder's session; see `DecodingSession.decode`."""


class _WrappingSession(_Session):
    def __init__(self, decoder: WrappingDecoder, session: _Session) -> None:
        self._decoder, self._session = decoder, session

    def decode(self, prompts: Prompts, generator: torch.Generator) -> tuple[Recommendations, DecodingTrace]:
        return self._decoder.decode(self._session, prompts, generator)


class BatchwiseDecoder(WrappingDecoder):
    """Decodes a large batch a few prompts at a time, with the same lists, greedy or sampled.

    Time spent between two batches counts as decoding.

    Args:
        decoder: the one that decodes.
        batch_size: prompts in a batch, at least 1; the last may have fewer.

    Raises:
        InputError: `batch_size` is below 1.
    """

    def __init__(self, decoder: Decoder, batch_size: PositiveInt) -> None:
        check_arguments(BatchwiseDecoder, locals())
        super().__init__(decoder)
        self._batch_size = batch_size

    def decode(
        self, session: _Session, prompts: Prompts, generator: torch.Generator
    ) -> tuple[Recommendations, DecodingTrace]:
        """See `WrappingDecoder.decode`."""
        if len(prompts.tokens) <= self._batch_size:
            return session.decode(prompts, generator)
        watch = Stopwatch(prompts.tokens.device)
        parts = []
        for first, batch in enumerate(prompts.batches(self._batch_size)):
            try:
                parts.append(session.decode(batch, generator))
            except NotFiniteError as error:
                raise NotFiniteError([first * self._batch_size + row for row in error.rows]) from None
        trace = DecodingTrace.joined([trace for _, trace in parts])
        decode_seconds = watch.lap() - trace.prefill_seconds - trace.recording_seconds
        return Recommendations.joined([lists for lists, _ in parts]), replace(trace, decode_seconds=decode_seconds)


class RepeatedDecoder(WrappingDecoder):
    """Decodes several copies of every prompt in one batch and returns the list of the first.

    This measures what batch size alone changes: in low precision sums depend on their order, so the lists that differ
    here are those that numerics change for any arm. Proposals are counted over all copies.

    Args:
        decoder: the one that decodes.
        copies: rows for each prompt, from 2 to 64.

    Raises:
        InputError: `copies` is out of range.
    """

    def __init__(
        self,
        decoder: Decoder,
        copies: Annotated[int, Range(f"2 … {_MOST_COPIES}", lambda copies: 2 <= copies <= _MOST_COPIES)] = 2,
    ) -> None:
        check_arguments(RepeatedDecoder, locals())
        super().__init__(decoder)
        self._copies = copies

    def decode(
        self, session: _Session, prompts: Prompts, generator: torch.Generator
    ) -> tuple[Recommendations, DecodingTrace]:
        """See `WrappingDecoder.decode`."""
        n, copies = len(prompts.tokens), self._copies
        # Copies follow the prompts, which thus get the random keys that they have without copies.
        repeated = replace(prompts.map(lambda values: torch.cat([values] * copies)), packed=None)
        try:
            lists, trace = session.decode(repeated, torch.Generator().set_state(generator.get_state()))
        except NotFiniteError as error:
            raise NotFiniteError(sorted({row % n for row in error.rows})) from None
        Sampling().keys(n, generator, generator.device)  # advances the generator as a decode without copies does
        first = Recommendations(lists.leaves[:n], lists.tokens[:n], lists.log_probs[:n])
        target_passes, draft_passes, tokens = trace.target_passes[:n], trace.draft_passes[:n], trace.tokens[:n]
        drafted = None if trace.drafted is None else trace.drafted[:n]
        return first, replace(
            trace, target_passes=target_passes, draft_passes=draft_passes, tokens=tokens, drafted=drafted
        )
