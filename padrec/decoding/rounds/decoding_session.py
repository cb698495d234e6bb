"""A decoder bound to a target and a request."""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Protocol, TypeVar

import torch

from padrec.decoding.device.deferred_value import deferred_value
from padrec.decoding.device.host_copy import HostCopy
from padrec.decoding.device.stopwatch import Stopwatch
from padrec.decoding.layers.prompt_shape import cache_capacity
from padrec.decoding.layers.prompts import Prompts
from padrec.decoding.lists.decoding_trace import DecodingTrace
from padrec.decoding.lists.request import Request
from padrec.decoding.rounds.captured_loop import CapturedLoop
from padrec.decoding.rounds.rounds import Rounds

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

# Each holds a cache, and on a GPU captured graphs.
_MOST_SESSIONS = 32


class DecodingSession(Protocol[R_co]):
    """Decodes batches for one target and one request."""

    def decode(self, prompts: Prompts, generator: torch.Generator) -> tuple[R_co, DecodingTrace]:
        """Generate for each prompt; the generator, on the CPU, is the only source of randomness."""
        ...


class SessionsByShape(DecodingSession[R_co]):
    """One session for each batch size and cache capacity, and another for prompts that exclude items.

    `make` opens one when it is first needed, given batch size, capacity in tokens (with `room` after the prompts), and
    whether prompts exclude items; the least recently used one is given up when there are too many. `check_prompts`
    raises an error where the longest prompt has too many tokens. Prompts may be on the host or on `device`, where they
    are decoded.
    """

    def __init__(
        self,
        make: Callable[[int, int, bool], DecodingSession[R_co]],
        room: int,
        check_prompts: Callable[[int], None],
        device: torch.device,
    ) -> None:
        self._session, self._room = lru_cache(_MOST_SESSIONS)(make), room
        self._check = lru_cache(check_prompts)  # a model's limit is looked for in all of its settings
        self._device = device

    @torch.inference_mode()
    def decode(self, prompts: Prompts, generator: torch.Generator) -> tuple[R_co, DecodingTrace]:
        """See `DecodingSession.decode`."""
        self._check(prompts.tokens.shape[1])
        capacity = cache_capacity(prompts, self._room, self._device)
        session = self._session(len(prompts.tokens), capacity, prompts.excluded is not None)
        return session.decode(prompts, generator)


class ShapeSession(DecodingSession[R]):
    """Decodes batches of one size in rounds, reusing the same tensors and captured work."""

    def __init__(self, rounds: Rounds, request: Request[R], device: torch.device) -> None:
        self._rounds, self._request, self._device = rounds, request, device
        self._loop = CapturedLoop(rounds.start, [rounds.round], device)
        lists = rounds.lists
        written = lists.tokens, lists.log_probs, lists.lengths, lists.drafted
        self._results = HostCopy([*written, rounds.accepted, *rounds.statistics.counts])

    def decode(self, prompts: Prompts, generator: torch.Generator) -> tuple[R, DecodingTrace]:
        """See `DecodingSession.decode`."""
        rounds, keys = self._rounds, prompts.random_keys(self._request.sampling, generator)
        learning = self._learn(prompts) if rounds.learns else 0.0
        prefill, rest, capture = self._loop.run(prompts, keys, lambda: self._finish(prompts))
        tokens, log_probs, lengths, drafted, accepted, *counts = self._results.values()
        by_source = dict(zip(rounds.sources, accepted.tolist(), strict=True))
        trace = DecodingTrace.of_counts(learning + prefill, rest, lengths, counts, capture, drafted, by_source)
        return self._request.result(tokens, log_probs), trace

    def _learn(self, prompts: Prompts) -> float:
        """Seconds in which the draft learned from the last batch; both ends wait for the device."""
        watch = Stopwatch(self._device)
        self._rounds.next_batch(prompts)
        return watch.lap()

    def _finish(self, prompts: Prompts) -> None:
        self._run_rounds(prompts)
        self._results.begin()

    def _run_rounds(self, prompts: Prompts) -> None:
        missing = self._rounds.lists.missing
        if self._rounds.on_host:
            while int(missing) > 0:
                self._rounds.look_up(prompts)
                self._loop.round()
            return
        run, needed = 0, self._least_rounds(self._request.n_tokens - 1)
        while run < needed:
            lacking = {}
            for after in range(run + 1, needed + 1):
                self._loop.round()
                # The last but one may already show that more are needed, while the device runs the last.
                if after >= needed - 1:
                    lacking[after] = deferred_value(missing)
            run = needed
            least = (after + self._least_rounds(value()) for after, value in lacking.items())
            needed = next((rounds for rounds in least if rounds > run), run)

    def _least_rounds(self, missing: int) -> int:
        """Rounds to run before asking again, when the list that lacks most lacks `missing` tokens.

        Lists that may stop anywhere get one more than they need for sure, so that the device does not wait.
        """
        least = math.ceil(missing / self._rounds.most_tokens)
        return min(2, least) if self._request.stop_tokens else least
