"""A decoder bound to a target and a request."""

from collections.abc import Callable
from typing import Protocol, TypeVar

import torch

from padrec.decoding.layers.prompts import Prompts, room_for
from padrec.decoding.lists.decoding_trace import DecodingTrace

R_co = TypeVar("R_co", covariant=True)


class DecodingSession(Protocol[R_co]):
    """Decodes batch after batch for one target and one request."""

    def decode(self, prompts: Prompts, generator: torch.Generator) -> tuple[R_co, DecodingTrace]:
        """Generate for each prompt.

        Args:
            prompts: what the target reads first, `[B]` rows.
            generator: on the CPU; the only source of randomness.
        """
        ...


class SessionsByShape(DecodingSession[R_co]):
    """A session for each batch size and cache capacity that it meets, and for prompts that exclude items another.

    Args:
        make: makes one from batch size, capacity, and whether prompts exclude items.
        room: tokens of the cache that are needed after the prompts.
    """

    def __init__(self, make: Callable[[int, int, bool], DecodingSession[R_co]], room: int) -> None:
        self._make, self._room = make, room
        self._sessions: dict[tuple[int, int, bool], DecodingSession[R_co]] = {}

    @torch.inference_mode()
    def decode(self, prompts: Prompts, generator: torch.Generator) -> tuple[R_co, DecodingTrace]:
        """See `DecodingSession.decode`."""
        shape = len(prompts.tokens), room_for(prompts, self._room), prompts.excluded is not None
        if shape not in self._sessions:
            self._sessions[shape] = self._make(*shape)
        return self._sessions[shape].decode(prompts, generator)
