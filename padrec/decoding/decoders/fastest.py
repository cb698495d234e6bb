"""The choice of the fastest decoder for each batch size, by trial."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

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
        return _FastestSession(self, request, sessions)

    def candidates(self, request: ListRequest, batch: int) -> Iterable[str]:
        """Names of the decoders to try for batches of this size."""
        return self.decoders


class FastestSession(DecodingSession[Recommendations]):
    """Decodes batches of one shape with the fastest of several sessions, which its first batch is tried with.

    Trials are counted as those of `FastestDecoder`. The other sessions are given up. All have the same results, and may
    share tensors: one decodes at a time.
    """

    def __init__(self, sessions: Mapping[str, DecodingSession[Recommendations]]) -> None:
        self._sessions = dict(sessions)

    def decode(self, prompts: Prompts, generator: torch.Generator) -> tuple[Recommendations, DecodingTrace]:
        """See `DecodingSession.decode`."""
        spent = 0.0
        if len(self._sessions) > 1:
            seconds, spent = _timed(self._sessions, prompts)
            fastest = min(seconds, key=lambda name: seconds[name])
            self._sessions = {fastest: self._sessions[fastest]}
            _log_choice(prompts, fastest, seconds)
        ((name, session),) = self._sessions.items()
        lists, trace = session.decode(prompts, generator)
        return lists, replace(trace, recording_seconds=trace.recording_seconds + spent, decoder=name)


class _FastestSession(DecodingSession[Recommendations]):
    def __init__(
        self,
        decoder: FastestDecoder,
        request: ListRequest,
        sessions: Mapping[str, DecodingSession[Recommendations]],
    ) -> None:
        self._decoder, self._request, self._sessions = decoder, request, sessions
        self._trials: dict[int, _Trials] = {}  # by batch size

    def decode(self, prompts: Prompts, generator: torch.Generator) -> tuple[Recommendations, DecodingTrace]:
        batch = len(prompts.tokens)
        if batch not in self._trials:
            self._trials[batch] = _Trials(dict.fromkeys(self._decoder.candidates(self._request, batch), 0.0))
        trials = self._trials[batch]
        spent = 0.0 if trials.over else self._try(trials, prompts)
        lists, trace = self._sessions[trials.fastest].decode(prompts, generator)
        trace = trace.widened(self._decoder.max_depth(self._request))
        return lists, replace(trace, recording_seconds=trace.recording_seconds + spent, decoder=trials.fastest)

    def _try(self, trials: "_Trials", prompts: Prompts) -> float:
        """Decode a batch with all remaining candidates; returns the seconds spent."""
        remaining = {name: session for name, session in self._sessions.items() if name in trials.seconds}
        seconds, spent = _timed(remaining, prompts)
        trials.add(seconds)
        if trials.over:
            _log_choice(prompts, trials.fastest, trials.seconds)
        return spent


def _timed(
    sessions: Mapping[str, DecodingSession[Recommendations]], prompts: Prompts
) -> tuple[dict[str, float], float]:
    """The seconds that each session takes for a batch, by name, and those spent on finding out."""
    spent, seconds = 0.0, {}
    for name, session in sessions.items():
        # A generator of its own: trials must not change sampled lists.
        runs = [session.decode(prompts, torch.Generator().manual_seed(0)) for _ in range(1 + _MEASUREMENTS)]
        seconds[name] = min(trace.seconds for _, trace in runs[1:])
        spent += sum(trace.seconds + trace.recording_seconds for _, trace in runs)
    return seconds, spent


def _log_choice(prompts: Prompts, fastest: str, seconds: Mapping[str, float]) -> None:
    times = ", ".join(f"{name} {1000 * value:.1f} ms" for name, value in seconds.items())
    _logger.info("batches of %d are decoded by %s (%s)", len(prompts.tokens), fastest, times)


@dataclass
class _Trials:
    """Results for one batch size."""

    seconds: dict[str, float]  # of each remaining candidate, over all batches so far
    batches: int = 0  # tried so far

    @property
    def fastest(self) -> str:
        return min(self.seconds, key=lambda name: self.seconds[name])

    @property
    def over(self) -> bool:
        return self.batches == _TRIALS or len(self.seconds) == 1

    def add(self, seconds: Mapping[str, float]) -> None:
        """Count another batch, and drop the candidates that are clearly slower."""
        self.batches += 1
        total = {name: before + seconds[name] for name, before in self.seconds.items()}
        most = (1 + _MARGIN) * min(total.values())
        self.seconds = {name: value for name, value in total.items() if value <= most}
