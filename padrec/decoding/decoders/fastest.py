"""The choice of the fastest decoder for each batch size, by trial."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch

from padrec.catalog import InputError
from padrec.decoding.decoders.decoder import LIST_SEARCH, Decoder
from padrec.decoding.layers.prompts import Prompts
from padrec.decoding.layers.runner import TransformersRunner
from padrec.decoding.lists.decoding_trace import DecodingTrace
from padrec.decoding.lists.request import ListRequest, Recommendations
from padrec.decoding.rounds.decoding_session import DecodingSession

_logger = logging.getLogger(__name__)

# Timed decodes of a batch, of which the fastest counts; an untimed one before them warms up.
_MEASUREMENTS = 2

# Batches that are tried for each size; the rounds of a single one depend too much on its slowest list.
_TRIALS = 4

# Decoders slower than the fastest by more than this share are not tried again.
_MARGIN = 0.25


class FastestDecoder(Decoder):
    """Decodes with the fastest of several lossless decoders, chosen by trial for every batch size.

    All of them decode the first batch of a size; those at most a quarter slower than the fastest also decode the next
    three. Trials are not part of the decoding time; `DecodingTrace.recording_seconds` reports them.

    Args:
        decoders: by name; all lossless, so that the choice affects only time.

    Raises:
        InputError: no decoder, or one that is not lossless or does not write lists.
    """

    lossless = True
    search = LIST_SEARCH

    def __init__(self, decoders: Mapping[str, Decoder]) -> None:
        lossy = [name for name, arm in decoders.items() if not arm.lossless or arm.search != LIST_SEARCH]
        if not decoders or lossy:
            what = f"decoders {list(decoders)}, not lossless {lossy}"
            raise InputError(f"{what}: expected lossless decoders of lists, at least one")
        self.decoders = dict(decoders)
        self.choices = tuple(decoders)

    def max_depth(self, request: ListRequest) -> int:
        """The deepest proposal of any decoder; see `Decoder.max_depth`."""
        return max(decoder.max_depth(request) for decoder in self.decoders.values())

    def bind(self, runner: TransformersRunner, request: ListRequest) -> DecodingSession[Recommendations]:
        """Bind all decoders; see `Decoder.bind`."""
        sessions = {name: decoder.bind(runner, request) for name, decoder in self.decoders.items()}
        return _SessionsByBatch(self, request, sessions)

    def candidates(self, request: ListRequest, batch: int) -> Iterable[str]:
        """Names of the decoders to try for batches of this size."""
        return self.decoders


class FastestSession(DecodingSession[Recommendations]):
    """Decodes with the fastest of several sessions, with which its first batches are tried.

    Trials are counted as those of `FastestDecoder`. Afterwards the other sessions are given up. All have the same
    results, and may share tensors: one decodes at a time.
    """

    def __init__(self, sessions: Mapping[str, DecodingSession[Recommendations]], trials: int = 1) -> None:
        self._sessions, self._trials = dict(sessions), trials if len(sessions) > 1 else 0
        self._seconds = dict.fromkeys(sessions, 0.0)  # of each remaining session, over all batches so far

    def decode(self, prompts: Prompts, generator: torch.Generator) -> tuple[Recommendations, DecodingTrace]:
        """See `DecodingSession.decode`."""
        spent = self._try(prompts) if self._trials > 0 else 0.0
        fastest = min(self._seconds, key=lambda name: self._seconds[name])
        lists, trace = self._sessions[fastest].decode(prompts, generator)
        return lists, replace(trace, recording_seconds=trace.recording_seconds + spent, decoder=fastest)

    def _try(self, prompts: Prompts) -> float:
        """Decode a batch with all remaining sessions, and drop those that are clearly slower; returns seconds spent."""
        spent = 0.0
        for name, session in self._sessions.items():
            # A generator of its own: trials must not change sampled lists.
            runs = [session.decode(prompts, torch.Generator().manual_seed(0)) for _ in range(1 + _MEASUREMENTS)]
            self._seconds[name] += min(trace.seconds for _, trace in runs[1:])
            spent += sum(trace.seconds + trace.recording_seconds for _, trace in runs)
        self._trials -= 1
        times = ", ".join(f"{name} {1000 * value:.1f} ms" for name, value in self._seconds.items())
        fastest = min(self._seconds, key=lambda name: self._seconds[name])
        most = (1 + _MARGIN) * self._seconds[fastest]
        left = [name for name, value in self._seconds.items() if value <= most] if self._trials > 0 else [fastest]
        self._seconds = {name: self._seconds[name] for name in left}
        self._sessions = {name: self._sessions[name] for name in left}
        if len(left) == 1:
            self._trials = 0
            _logger.info("batches of %d are decoded by %s (%s)", len(prompts.tokens), fastest, times)
        return spent


class _SessionsByBatch(DecodingSession[Recommendations]):
    def __init__(
        self,
        decoder: FastestDecoder,
        request: ListRequest,
        sessions: Mapping[str, DecodingSession[Recommendations]],
    ) -> None:
        self._decoder, self._request, self._sessions = decoder, request, sessions
        self._max_depth = decoder.max_depth(request)
        self._fastest: dict[int, FastestSession] = {}  # by batch size

    def decode(self, prompts: Prompts, generator: torch.Generator) -> tuple[Recommendations, DecodingTrace]:
        batch = len(prompts.tokens)
        if batch not in self._fastest:
            names = self._decoder.candidates(self._request, batch)
            self._fastest[batch] = FastestSession({name: self._sessions[name] for name in names}, _TRIALS)
        lists, trace = self._fastest[batch].decode(prompts, generator)
        return lists, trace.widened(self._max_depth)
