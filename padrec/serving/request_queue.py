"""Requests that wait for a worker, and the batches made of them."""

import asyncio
from collections import deque
from dataclasses import dataclass, field

from padrec.serving.answer import Answer
from padrec.serving.recommendation_request import RecommendationRequest


class QueueFullError(Exception):
    """More requests than can wait."""


@dataclass(frozen=True, eq=False)
class QueuedRequest:
    """A request and the future of its answer."""

    request: RecommendationRequest
    explain: bool = False  # the list, too; such a request is a batch of its own
    answer: "asyncio.Future[Answer]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def users(self) -> int:
        """Lists to write."""
        return len(self.request.histories)

    def resolve(self, answer: Answer) -> None:
        """Set the answer, unless nobody waits for it any more."""
        if not self.answer.done():
            self.answer.set_result(answer)


class RequestQueue:
    """Lets requests wait, and makes batches of those of one kind, the oldest first.

    While a batch is decoded, the next one gathers; so batches fill by themselves as the load grows. `wait` also holds a
    batch back that is not full, for requests that come a little later. Sizes are in users, `wait` is in seconds.
    """

    def __init__(self, most_waiting: int, batch_size: int, wait: float) -> None:
        self._most_waiting, self._batch_size, self._wait = most_waiting, batch_size, wait
        self._waiting: deque[QueuedRequest] = deque()
        self._some = asyncio.Event()
        self.users = 0  # that wait

    def put(self, queued: QueuedRequest) -> None:
        """Let a request wait, or raise `QueueFullError`."""
        if self.users + queued.users > self._most_waiting:
            raise QueueFullError
        self._waiting.append(queued)
        self.users += queued.users
        self._some.set()

    async def next_batch(self) -> list[QueuedRequest]:
        """Wait for a request, and take the oldest one with later ones of its kind."""
        while True:
            await self._some.wait()
            if self._wait > 0 and self.users < self._batch_size:
                await asyncio.sleep(self._wait)
            if batch := self._take():
                return batch

    def _take(self) -> list[QueuedRequest]:
        batch: list[QueuedRequest] = []
        left: deque[QueuedRequest] = deque()
        room = self._batch_size
        for queued in self._waiting:
            fits = not batch or (queued.users <= room and _together(batch[0], queued))
            room -= queued.users if fits else 0
            (batch if fits else left).append(queued)
        self._waiting = left
        self.users -= sum(queued.users for queued in batch)
        if not left:
            self._some.clear()
        return batch


def _together(first: QueuedRequest, other: QueuedRequest) -> bool:
    return not (first.explain or other.explain) and first.request.kind == other.request.kind
