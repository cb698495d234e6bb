"""A recommender so small that it answers in milliseconds, and workers that need no process."""

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient

from padrec import Recommender
from padrec.data import SemanticIDDataModule
from padrec.recommender_folder import DecoderSettings
from padrec.serving import Answerer, Worker
from padrec.serving.answer import Answer, AnsweredBatch
from padrec.serving.recommendation_request import RecommendationRequest
from padrec.serving.worker import WorkerEndedError
from tests.tiny_training import tiny_draft, tiny_recommender

SETTINGS = DecoderSettings(depth=3, width=2, nodes=6)


def write_parts(data: SemanticIDDataModule, folder: Path) -> None:
    """Write an untrained target and an untrained draft."""
    tiny_recommender(data).save_pretrained(folder / "target")
    tiny_draft(data, folder / "target").save_pretrained(folder / "draft")


def write_recommender(data: SemanticIDDataModule, folder: Path) -> Path:
    """Write an untrained recommender; returns its folder."""
    write_parts(data, folder)
    recommender = Recommender.load(folder / "target", folder / "draft", SETTINGS, device="cpu")
    recommender.save_pretrained(folder / "shop")
    return folder / "shop"


class LocalWorker(Worker):
    """Answers in a thread of this process."""

    def __init__(self, answerer: Answerer) -> None:
        self._answerer = answerer

    async def start(self) -> dict[str, Any]:
        return self._answerer.info

    async def answer(self, requests: Sequence[RecommendationRequest], explain: bool = False) -> AnsweredBatch:
        if explain:
            return await asyncio.to_thread(self._answerer.explain, requests[0])
        return await asyncio.to_thread(self._answerer.answer, requests)

    async def stop(self) -> None: ...


class StubWorker(Worker):
    """Answers each request with the number of its batch, when it is let; it ends over requests with seed 13."""

    def __init__(self, let: Callable[[], bool] = lambda: True) -> None:
        self._let = let
        self.batches: list[list[RecommendationRequest]] = []
        self.starts = self.stops = 0

    async def start(self) -> dict[str, Any]:
        self.starts += 1
        return {}

    async def answer(self, requests: Sequence[RecommendationRequest], explain: bool = False) -> AnsweredBatch:
        self.batches.append(list(requests))
        number = len(self.batches)
        while not self._let():
            await asyncio.sleep(0.001)
        if any(request.seed == 13 for request in requests):
            raise WorkerEndedError
        return AnsweredBatch([Answer(200, json.dumps(self.body(number)).encode()) for _ in requests])

    def body(self, number: int) -> dict[str, object]:
        """The answer to the requests of a batch."""
        return {"batch": number}

    async def stop(self) -> None:
        self.stops += 1


def ask(client: TestClient, **fields: Any) -> tuple[int, dict[str, Any]]:
    """Status and JSON of the answer to a request."""
    reply = client.post("/recommend", json={"histories": [["item-1"]], "k": 2, **fields})
    return reply.status_code, reply.json()
