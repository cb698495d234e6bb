"""A decoder's sessions, each for batches of one shape."""

from collections.abc import Callable
from functools import partial

import torch

from padrec.catalog import InputError
from padrec.decoding.continuous import ContinuousSession
from padrec.decoding.decoder import ListRequest
from padrec.decoding.recommendations import DecodingTrace, Recommendations
from padrec.decoding.runner import Prompts, TargetRunner
from padrec.decoding.session import Rounds, Session, room_for


class Sessions:
    """A decoder's sessions: one for each target, request, batch size and capacity that it meets.

    Args:
        rounds: makes the rounds of a session from runner, request, batch size and capacity.
        room: tokens of the cache that a round needs behind prompt and list.
        rows: decode larger batches in so many rows; None has a row for every prompt.

    Raises:
        InputError: fewer than two rows.
    """

    def __init__(
        self, rounds: Callable[[TargetRunner, ListRequest, int, int], Rounds], room: int, rows: int | None = None
    ) -> None:
        check_rows(rows)
        self._rounds = rounds
        self._room = room
        self._rows = rows
        # The keys hold runner and request alive: the next one cannot be mistaken for them.
        self._sessions: dict[tuple[TargetRunner, ListRequest, int, int, bool], Session | ContinuousSession] = {}

    def decode(
        self, runner: TargetRunner, prompts: Prompts, request: ListRequest, generator: torch.Generator
    ) -> tuple[Recommendations, DecodingTrace]:
        """Write one list for each prompt; see `Decoder.decode`."""
        device, n_prompts = prompts.tokens.device, len(prompts.tokens)
        batch = min(n_prompts, self._rows or n_prompts)
        capacity = room_for(prompts, request.n_tokens + self._room)
        key = (runner, request, batch, capacity, n_prompts > batch)
        if key not in self._sessions:
            rounds = partial(self._rounds, runner, request)
            self._sessions[key] = (
                ContinuousSession(rounds, batch, capacity, request, device)
                if n_prompts > batch
                else Session(rounds(batch, capacity), request, device)
            )
        return self._sessions[key].decode(prompts, generator)


def check_rows(rows: int | None) -> None:
    """Refuse a number of rows that cannot be refilled.

    Raises:
        InputError: fewer than two rows.
    """
    if rows is not None and rows < 2:
        raise InputError(f"rows {rows}: expected at least 2, or null for a row for every prompt")
