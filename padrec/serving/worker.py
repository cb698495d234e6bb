"""A process that answers with one recommender on one device."""

import asyncio
import contextlib
import logging
import multiprocessing
import os
import select
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

from padrec.catalog import InputError
from padrec.serving.answer import AnsweredBatch
from padrec.serving.recommendation_request import RecommendationRequest, RequestKind

_LOG = logging.getLogger(__name__)
_SECONDS_TO_END = 10.0
_SECONDS_BETWEEN_LOOKS = 1.0  # at catalog and stock, when there is nothing else to do


class WorkerEndedError(Exception):
    """The worker's process has ended before it answered."""


class Worker(Protocol):
    """Answers one batch at a time."""

    async def start(self) -> dict[str, Any]:
        """Get ready to answer; returns what `/info` says about it.

        Raises:
            InputError: it cannot start, and another try would not help.
        """

    async def answer(self, requests: Sequence[RecommendationRequest], explain: bool = False) -> AnsweredBatch:
        """Answer requests of one kind; with `explain` a single one, whose list is explained.

        Raises:
            WorkerEndedError: it has died; `start` restarts it.
        """

    async def stop(self) -> None:
        """End."""


@dataclass(frozen=True)
class WorkerSettings:
    """What a worker's process is started with; for the last four see `Answerer`."""

    folder: str  # of the recommender, or a repository of the hub
    device: str | None = None  # None is the GPU where there is one, else the CPU
    catalog: Path | None = None
    stock: Path | None = None
    warm_up: tuple[RequestKind, ...] = ()
    batch_size: int = 32


class WorkerProcess(Worker):
    """A worker in a process of its own, so that HTTP and decoding never wait for each other.

    The process ends with its parent, however that ends.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._context = multiprocessing.get_context("spawn")

    async def start(self) -> dict[str, Any]:
        """See `Worker.start`."""
        self._connection, theirs = self._context.Pipe()
        self._process = self._context.Process(target=run_worker, args=(theirs, self._settings), daemon=True)
        self._process.start()
        theirs.close()
        self._message = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().add_reader(self._connection.fileno(), self._receive)
        ready = await self._message
        if isinstance(ready, str):
            asyncio.get_running_loop().remove_reader(self._connection.fileno())  # the next start has another pipe
            raise InputError(ready)
        return ready  # type: ignore[no-any-return]

    async def answer(self, requests: Sequence[RecommendationRequest], explain: bool = False) -> AnsweredBatch:
        """See `Worker.answer`."""
        self._message = asyncio.get_running_loop().create_future()
        try:
            self._connection.send((explain, requests))
        except OSError:
            raise WorkerEndedError from None
        return await self._message  # type: ignore[no-any-return]

    async def stop(self) -> None:
        """See `Worker.stop`."""
        asyncio.get_running_loop().remove_reader(self._connection.fileno())
        self._connection.close()
        await asyncio.to_thread(self._process.join, _SECONDS_TO_END)
        self._process.kill()

    def _receive(self) -> None:
        """Read a message, or notice the end of the process, when the event loop says that there is one."""
        os.set_blocking(self._connection.fileno(), True)  # uvloop changes that, and a message may arrive in parts
        try:
            message = self._connection.recv()
        except (EOFError, OSError):
            asyncio.get_running_loop().remove_reader(self._connection.fileno())
            if not self._message.done():
                self._message.set_exception(WorkerEndedError())
        else:
            if not self._message.done():
                self._message.set_result(message)


def run_worker(connection: Connection, settings: WorkerSettings) -> None:
    """Answer batches from a connection until it is closed."""
    # The service ends its workers by closing the connection, after they have answered.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(level=logging.INFO, format="padrec serve: %(message)s")
    import torch

    from padrec.recommender import Recommender
    from padrec.serving.answerer import Answerer

    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            if settings.device is not None and settings.device.startswith("cuda:"):
                torch.cuda.set_device(settings.device)  # where kernels are launched and graphs recorded
            recommender = Recommender.from_pretrained(settings.folder, device=settings.device)
            answerer = Answerer(
                recommender, settings.catalog, settings.stock, settings.warm_up, batch_size=settings.batch_size
            )
        except InputError as error:
            connection.send(str(error))
            return
        connection.send(answerer.info)
        waiting = select.poll()  # `Connection.poll` makes one anew for every message
        waiting.register(connection.fileno(), select.POLLIN)
        while True:
            while not waiting.poll(1000 * _SECONDS_BETWEEN_LOOKS):
                answerer.refresh()
            explain, requests = connection.recv()
            connection.send(answerer.explain(requests[0]) if explain else answerer.answer(requests))
