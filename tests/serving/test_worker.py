"""Workers: messages of any size, and the end of their processes."""

import asyncio
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from padrec.catalog import InputError
from padrec.serving import WorkerProcess, WorkerSettings
from padrec.serving.recommendation_request import RecommendationRequest, RequestKind
from padrec.serving.worker import WorkerEndedError, run_worker
from tests.serving.large_answers import SIZE, answer_at_length, refuse_to_start


@pytest.fixture
def signals_kept() -> Iterator[None]:
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def test_answers_arrive_whole_and_the_end_of_a_process_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("padrec.serving.worker.run_worker", answer_at_length)
    request = RecommendationRequest(histories=[["a" * 1000] * 1000])

    async def steps() -> None:
        worker = WorkerProcess(WorkerSettings("shop", "cuda:1"))
        assert await worker.start() == {"device": "cuda:1"}
        for _ in range(2):
            os.set_blocking(worker._connection.fileno(), False)  # as uvloop does
            batch = await worker.answer([request] * 3)
            assert [len(answer.body) for answer in batch.answers] == [SIZE] * 3
        worker._process.kill()
        with pytest.raises(WorkerEndedError):
            await worker.answer([request])
        await worker.stop()

    asyncio.run(steps())


def test_a_worker_that_could_not_start_may_be_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("padrec.serving.worker.run_worker", refuse_to_start)

    async def steps() -> None:
        worker = WorkerProcess(WorkerSettings("shop"))
        for _ in range(6):  # the fifth pipe gets the number of an earlier one
            with pytest.raises(InputError, match="shop: expected another folder"):
                await asyncio.wait_for(worker.start(), 60)
        await worker.stop()

    asyncio.run(steps())


def test_a_worker_ends_when_nobody_is_left_to_ask_it(shop: Path, signals_kept: None) -> None:
    ours, theirs = multiprocessing.Pipe()
    ours.send((False, [RecommendationRequest(histories=[["item-1"]], k=3)]))
    replies = []

    def read_and_leave() -> None:
        replies.extend([ours.recv(), ours.recv()])
        ours.close()

    threading.Thread(target=read_and_leave).start()
    run_worker(theirs, WorkerSettings(str(shop), "cpu", warm_up=(RequestKind(3, "beam", 0.0),)))
    info, batch = replies
    assert info["n_items"] == 30
    assert [answer.status for answer in batch.answers] == [200]


def test_a_worker_that_cannot_start_says_why(tmp_path: Path, signals_kept: None) -> None:
    ours, theirs = multiprocessing.Pipe()
    run_worker(theirs, WorkerSettings(str(tmp_path), "cpu"))
    assert "no recommender.json, expected a folder of `padrec export`" in ours.recv()
