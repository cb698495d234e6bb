"""The service: requests over HTTP, a queue, workers."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.types import ASGIApp

from padrec.catalog import InputError
from padrec.serving.answer import Answer, Problem, RecommendationAnswer
from padrec.serving.garbage import spare_what_is_loaded
from padrec.serving.limits import Limits, RequestGuard
from padrec.serving.recommendation_request import RecommendationRequest
from padrec.serving.request_queue import QueuedRequest, QueueFullError, RequestQueue
from padrec.serving.service_metrics import ServiceMetrics
from padrec.serving.worker import Worker, WorkerEndedError

_LOG = logging.getLogger(__name__)
_SECONDS_BETWEEN_STARTS = 1.0
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "The body is no JSON."},
    408: {"model": Problem, "description": "The body took too long."},
    413: {"model": Problem, "description": "The body is too large."},
    422: {"model": Problem, "description": "A field is wrong, too large or unknown."},
    503: {"model": Problem, "description": "Too many requests wait; try again."},
}


class Service:
    """Answers requests, as an ASGI application.

    Args:
        workers: answer batches, one at a time each.
        limits: what is refused.
        batch_size: users in a batch.
        wait: seconds that a batch that is not full waits for more requests.

    Attributes:
        app: the application; it starts and stops the workers.
        failure: why the workers could not be started.
    """

    def __init__(
        self, workers: Sequence[Worker], limits: Limits | None = None, batch_size: int = 32, wait: float = 0.0
    ) -> None:
        self._workers, self._limits = workers, limits or Limits()
        self._queue = RequestQueue(self._limits.queue, batch_size, wait)
        self._metrics = ServiceMetrics(lambda: self._queue.users)
        self._info: dict[str, Any] = {}
        self._ready: set[Worker] = set()
        self._accepted = self._answered = 0
        self.failure: InputError | None = None
        self.app = self._make_app()

    def _make_app(self) -> ASGIApp:
        app = FastAPI(title="padrec", version="1", lifespan=self._lifespan)
        app.add_exception_handler(RequestValidationError, _wrong_fields)  # type: ignore[arg-type]
        answered: Callable[..., Any] = app.post("/recommend", response_model=RecommendationAnswer, responses=_PROBLEMS)
        answered(self.recommend)
        app.post("/explain", response_model=dict[str, Any], responses=_PROBLEMS)(self.explain)
        app.get("/health", responses={503: {"description": "No worker is ready."}})(self.health)
        app.get("/info")(self.info)
        app.get("/metrics", response_class=Response)(self.metrics)
        app.get("/", response_class=HTMLResponse, include_in_schema=False)(self.page)
        return RequestGuard(app, self._limits, self._metrics.count_answer, self.recommend)

    async def recommend(self, request: RecommendationRequest) -> Response:
        """Recommend K items to each user."""
        return await self._response(request)

    async def explain(self, request: RecommendationRequest) -> Response:
        """Recommend to one user, and explain the list round by round. Slow: for people, not for a shop."""
        if len(request.histories) > 1:
            return _response(Answer.problem(422, f"histories: {len(request.histories)}, expected one to explain"))
        return await self._response(request, explain=True)

    async def health(self) -> Response:
        """Whether requests can be answered."""
        ready = len(self._ready)
        return JSONResponse({"workers": ready}, 200 if ready else 503)

    async def info(self) -> dict[str, Any]:
        """Device, limits, and some items of the catalog."""
        return self._info

    async def metrics(self) -> Response:
        """Figures for Prometheus."""
        return Response(self._metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def page(self) -> str:
        """A page to try the service."""
        return (files("padrec.serving") / "page.html").read_text(encoding="utf-8")

    async def _response(self, request: RecommendationRequest, explain: bool = False) -> Response:
        start = time.perf_counter()
        answer = await self._answer(request, explain)
        self._metrics.seconds.observe(time.perf_counter() - start)
        return _response(answer, {"retry-after": "1"} if answer.status == 503 else None)

    async def _answer(self, request: RecommendationRequest, explain: bool) -> Answer:
        if (exceeded := self._limits.exceeded_by(request)) is not None:
            return Answer.problem(422, exceeded)
        queued = QueuedRequest(request, explain)
        try:
            self._queue.put(queued)
        except QueueFullError:
            return Answer.problem(
                503, f"{self._queue.users} users wait already, at most {self._limits.queue} may: try again"
            )
        self._accepted += 1
        answer = await queued.answer
        self._answered += 1
        return answer

    @asynccontextmanager
    async def _lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        serving: list[asyncio.Task[None]] = []
        try:
            try:
                infos = await asyncio.gather(*(self._start(worker) for worker in self._workers))
            except WorkerEndedError:
                self.failure = InputError("a worker ended while it started, expected it to get ready: see its output")
                raise
            except InputError as error:
                self.failure = error
                raise
            self._info = {**infos[0], "workers": len(infos), "limits": vars(self._limits)}
            spare_what_is_loaded()
            serving = [asyncio.create_task(self._serve(worker)) for worker in self._workers]
            yield
        finally:
            if serving:
                _LOG.info("answered %d of %d accepted requests", self._answered, self._accepted)
            for task in serving:
                task.cancel()
            await asyncio.gather(*(worker.stop() for worker in self._workers))

    async def _start(self, worker: Worker) -> dict[str, Any]:
        info = await worker.start()
        self._ready.add(worker)
        self._metrics.workers.set(len(self._ready))
        return info

    async def _serve(self, worker: Worker) -> None:
        """Hand batches to a worker, forever."""
        while True:
            batch = await self._queue.next_batch()
            try:
                answered = await worker.answer([queued.request for queued in batch], batch[0].explain)
            except Exception as error:
                if not isinstance(error, WorkerEndedError):
                    _LOG.exception("a worker failed")
                await self._replace(worker, batch)
                continue
            self._metrics.count(answered)
            for queued, answer in zip(batch, answered.answers, strict=True):
                queued.resolve(answer)

    async def _replace(self, worker: Worker, batch: Sequence[QueuedRequest]) -> None:
        """Tell the clients of a batch that its worker has ended, and restart the worker."""
        _LOG.error("a worker has ended; restarting it")
        self._ready.discard(worker)
        self._metrics.workers.set(len(self._ready))
        self._metrics.restarts.inc()
        for queued in batch:
            queued.resolve(Answer.problem(503, "the worker ended while answering this batch: try again"))
        await worker.stop()
        while worker not in self._ready:
            try:
                await self._start(worker)
            except (InputError, WorkerEndedError) as error:
                _LOG.error("a worker does not start: %s", error)
                await asyncio.sleep(_SECONDS_BETWEEN_STARTS)


def _response(answer: Answer, headers: Mapping[str, str] | None = None) -> Response:
    return Response(answer.body, answer.status, headers, media_type="application/json")


async def _wrong_fields(request: Request, error: RequestValidationError) -> Response:
    """One message, without the input, which may not even be text."""
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        answer = Answer.problem(400, f"body: no JSON at character {first['loc'][-1]} ({first['ctx']['error']})")
        return _response(answer)
    place = ".".join(str(part) for part in first["loc"] if part != "body") or "body"
    kind = request.headers.get("content-type", "none")
    if place == "body" and "json" not in kind:  # such as that of `curl -d` alone
        return _response(Answer.problem(422, f"content-type: {kind}, expected application/json"))
    return _response(Answer.problem(422, f"{place}: {first['msg']}"))
