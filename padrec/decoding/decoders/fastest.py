"""The decoder that suits the batch size: trees shrink as batches grow."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from padrec.catalog import InputError
from padrec.decoding.decoders.decoder import LIST_SEARCH, Decoder
from padrec.decoding.layers.prompts import Prompts
from padrec.decoding.layers.runner import TargetRunner
from padrec.decoding.lists.decoding_trace import DecodingTrace
from padrec.decoding.lists.request import ListRequest, Recommendations
from padrec.decoding.rounds.decoding_session import DecodingSession

_logger = logging.getLogger(__name__)

# Once for what is done for the first time only, and this often for the measurement, whose least counts.
_MEASUREMENTS = 2

# Batches of a size that are tried. One alone says little: how many rounds it takes is up to its slowest list.
_TRIALS = 4

# A decoder that has taken longer than the fastest by this share is tried no more.
_MARGIN = 0.25


class FastestDecoder(Decoder):
    """Decodes with the fastest of several lossless decoders, which is found out for every batch size it meets.

    The first batch of a size is decoded by all of them before it is decoded for good, the next three by those that
    have taken at most a quarter longer than the fastest. What that costs is not part of the decoding time; it is
    reported as `DecodingTrace.recording_seconds`.

    Args:
        decoders: by name; all lossless, so that the choice decides over nothing but time.

    Raises:
        InputError: no decoder, or one that is not lossless.
    """

    lossless = True
    search = LIST_SEARCH

    def __init__(self, decoders: Mapping[str, Decoder]) -> None:
        lossy = [name for name, arm in decoders.items() if not arm.lossless or arm.search != LIST_SEARCH]
        if not decoders or lossy:
            what = f"decoders {list(decoders)}, not lossless {lossy}"
            raise InputError(f"{what}: expected lossless decoders of lists, at least one")
        self.decoders = dict(decoders)

    def max_depth(self, request: ListRequest) -> int:
        """The deepest proposal of any decoder; see `Decoder.max_depth`."""
        return max(decoder.max_depth(request) for decoder in self.decoders.values())

    def bind(self, runner: TargetRunner, request: ListRequest) -> DecodingSession[Recommendations]:
        """Load what all decoders need; see `Decoder.bind`."""
        sessions = {name: decoder.bind(runner, request) for name, decoder in self.decoders.items()}
        return _FastestSession(self, request, sessions)

    def candidates(self, request: ListRequest, batch: int) -> Mapping[str, Decoder]:
        """The decoders that a batch of this size is tried with, by name."""
        return self.decoders


class _FastestSession:
    """See `DecodingSession`."""

    def __init__(
        self,
        decoder: FastestDecoder,
        request: ListRequest,
        sessions: Mapping[str, DecodingSession[Recommendations]],
    ) -> None:
        self._decoder, self._request, self._sessions = decoder, request, sessions
        self._trials: dict[int, _Trials] = {}  # by batch size

    def decode(self, prompts: Prompts, generator: torch.Generator) -> tuple[Recommendations, DecodingTrace]:
        """See `DecodingSession.decode`."""
        batch = len(prompts.tokens)
        if batch not in self._trials:
            self._trials[batch] = _Trials(dict.fromkeys(self._decoder.candidates(self._request, batch), 0.0))
        trials = self._trials[batch]
        spent = 0.0 if trials.over else self._try(trials, prompts)
        lists, trace = self._sessions[trials.fastest].decode(prompts, generator)
        trace = trace.widened(self._decoder.max_depth(self._request))
        return lists, replace(trace, recording_seconds=trace.recording_seconds + spent, decoder=trials.fastest)

    def _try(self, trials: "_Trials", prompts: Prompts) -> float:
        """Decode a batch by all that are still in question; returns the seconds that took."""
        spent, seconds = 0.0, {}
        for name in trials.seconds:
            traces = []
            for _ in range(1 + _MEASUREMENTS):
                # The request's own generator must stand where it stood: sampled lists may not depend on this.
                _, trace = self._sessions[name].decode(prompts, torch.Generator().manual_seed(0))
                traces.append(trace)
            seconds[name] = min(trace.seconds for trace in traces[1:])
            spent += sum(trace.seconds + trace.recording_seconds for trace in traces)
        trials.add(seconds)
        if trials.over:
            times = ", ".join(f"{name} {1000 * value:.1f} ms" for name, value in trials.seconds.items())
            _logger.info("batches of %d are decoded by %s (%s)", len(prompts.tokens), trials.fastest, times)
        return spent


@dataclass
class _Trials:
    """What the first batches of a size have shown.

    Attributes:
        seconds: of each decoder still in question, by name, for all batches so far.
        batches: their number.
    """

    seconds: dict[str, float]
    batches: int = 0

    @property
    def fastest(self) -> str:
        return min(self.seconds, key=lambda name: self.seconds[name])

    @property
    def over(self) -> bool:
        return self.batches == _TRIALS or (self.batches > 0 and len(self.seconds) == 1)

    def add(self, seconds: Mapping[str, float]) -> None:
        """Count another batch, and leave out what is slower by far."""
        self.batches += 1
        total = {name: before + seconds[name] for name, before in self.seconds.items()}
        most = (1 + _MARGIN) * min(total.values())
        self.seconds = {name: value for name, value in total.items() if value <= most}
