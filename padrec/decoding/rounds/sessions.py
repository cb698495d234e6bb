"""A decoder's sessions, each for batches of one shape."""

from collections.abc import Callable

import torch

from padrec.decoding.layers.runner import Prompts, TargetRunner
from padrec.decoding.lists.list_request import ListRequest
from padrec.decoding.lists.recommendations import DecodingTrace, Recommendations
from padrec.decoding.rounds.session import Rounds, Session, room_for


class Sessions:
    """A decoder's sessions: one for each target, request, batch size and capacity that it meets.

    Args:
        rounds: makes the rounds of a session from runner, request, batch size and capacity.
        room: tokens of the cache that a round needs after prompt and list.
    """

    def __init__(self, rounds: Callable[[TargetRunner, ListRequest, int, int], Rounds], room: int) -> None:
        self._rounds = rounds
        self._room = room
        # The keys hold runner and request alive: the next one cannot be mistaken for them.
        self._sessions: dict[tuple[TargetRunner, ListRequest, int, int], Session] = {}

    def decode(
        self, runner: TargetRunner, prompts: Prompts, request: ListRequest, generator: torch.Generator
    ) -> tuple[Recommendations, DecodingTrace]:
        """Write one list for each prompt; see `Decoder.decode`."""
        batch, capacity = len(prompts.tokens), room_for(prompts, request.n_tokens + self._room)
        key = (runner, request, batch, capacity)
        if key not in self._sessions:
            self._sessions[key] = Session(
                self._rounds(runner, request, batch, capacity), request, prompts.tokens.device
            )
        return self._sessions[key].decode(prompts, generator)
