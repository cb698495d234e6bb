"""The queue: batches of one kind, oldest first, and no more than may wait."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from padrec.serving.recommendation_request import RecommendationRequest
from padrec.serving.request_queue import QueuedRequest, QueueFullError, RequestQueue

_REQUESTS = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3), st.booleans()), max_size=12)


def request(k: int = 10, users: int = 1, **fields: Any) -> RecommendationRequest:
    return RecommendationRequest(histories=[["a"]] * users, k=k, **fields)


def run(steps: Coroutine[Any, Any, None]) -> None:
    asyncio.run(steps)


@given(requests=_REQUESTS, batch_size=st.integers(3, 6))
def test_every_request_is_in_one_batch_of_its_kind_and_the_oldest_comes_first(
    requests: list[tuple[int, int, bool]], batch_size: int
) -> None:
    async def steps() -> None:
        queue = RequestQueue(1000, batch_size, wait=0)
        waiting = [QueuedRequest(request(k, users), explain) for k, users, explain in requests]
        for queued in waiting:
            queue.put(queued)
        assert queue.users == sum(users for _, users, _ in requests)
        while waiting:
            batch = await queue.next_batch()
            assert batch[0] is waiting[0]
            assert batch == [queued for queued in waiting if queued in batch], "in the order of their arrival"
            assert len({queued.request.kind for queued in batch}) == 1
            assert len(batch) == 1 or sum(queued.users for queued in batch) <= batch_size
            assert len(batch) == 1 or not any(queued.explain for queued in batch)
            waiting = [queued for queued in waiting if queued not in batch]
        assert queue.users == 0

    run(steps())


def test_no_more_users_wait_than_may() -> None:
    async def steps() -> None:
        queue = RequestQueue(4, 32, wait=0)
        queue.put(QueuedRequest(request(users=3)))
        with pytest.raises(QueueFullError):
            queue.put(QueuedRequest(request(users=2)))
        queue.put(QueuedRequest(request(users=1)))
        assert sum(queued.users for queued in await queue.next_batch()) == 4
        queue.put(QueuedRequest(request(users=4)))

    run(steps())


def test_a_batch_that_is_not_full_waits_for_requests_that_come_a_little_later() -> None:
    async def steps() -> None:
        queue = RequestQueue(100, 4, wait=0.05)
        queue.put(QueuedRequest(request()))
        taking = asyncio.create_task(queue.next_batch())
        await asyncio.sleep(0)
        queue.put(QueuedRequest(request()))
        assert len(await taking) == 2

    run(steps())


def test_a_request_that_comes_while_nobody_waits_wakes_the_taker() -> None:
    async def steps() -> None:
        queue = RequestQueue(100, 4, wait=0)
        takers = [asyncio.create_task(queue.next_batch()) for _ in range(2)]
        await asyncio.sleep(0)
        for k in (1, 2):
            queue.put(QueuedRequest(request(k)))
        batches = [await taker for taker in takers]
        assert sorted(queued.request.k for batch in batches for queued in batch) == [1, 2]

    run(steps())
