"""The command that answers requests over HTTP."""

import contextlib
import logging
import socket
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from padrec.catalog import InputError, NonNegativeFloat, PositiveInt, Range, check_arguments
from padrec.cli.one_message_parser import call_configured

try:
    import uvicorn

    from padrec.serving import Limits, Service, WorkerProcess, WorkerSettings
    from padrec.serving.recommendation_request import RequestKind
except ImportError as error:
    raise InputError(f"padrec serve without {error.name}: expected the extra, `pip install 'padrec[serve]'`") from None

_LOG = logging.getLogger(__name__)
_Port = Annotated[int, Range("1 … 65535", lambda port: 1 <= port <= 65535)]


def serve(arguments: list[str]) -> None:
    """Run `padrec serve` with these arguments."""
    call_configured("serve", ServedRecommender, arguments, as_positional=True).run()


class ServedRecommender:
    """Answers requests for recommendations over HTTP, until SIGTERM or Ctrl-C.

    The page at / and the description of the API at /docs say how.

    Args:
        folder: a folder of `padrec export`, or a repository of the Hugging Face hub.
        host: address to listen at; 0.0.0.0 for all.
        port: to listen at.
        devices: a worker for each, such as cuda:0; None is one worker, on the GPU where there is one.
        catalog: folder of `Catalog.save` with the items to recommend; a replaced one is used from then on.
        stock: file with the keys of items out of stock, one a line; a replaced one is used from then on.
        batch_size: users decoded together.
        wait_ms: how long a batch that is not full waits for more requests, in milliseconds. A batch gathers while
            the one before it is decoded, so 0 serves most loads.
        warm_up: kinds of requests to record before the port opens: K, or K:search:temperature, with commas between.
        drain_seconds: seconds after a SIGTERM to answer the requests that were accepted.
        limits: what is refused.
    """

    def __init__(
        self,
        folder: str,
        host: str = "127.0.0.1",
        port: _Port = 8000,
        devices: list[str] | None = None,
        catalog: str | None = None,
        stock: str | None = None,
        batch_size: PositiveInt = 32,
        wait_ms: NonNegativeFloat = 0.0,
        warm_up: str = "10",
        drain_seconds: PositiveInt = 60,
        limits: Limits | None = None,
    ) -> None:
        check_arguments(ServedRecommender, locals())
        kinds = tuple(_kind(text) for text in warm_up.split(","))
        catalog_folder, stock_file = (None if path is None else Path(path) for path in (catalog, stock))
        settings = WorkerSettings(folder, None, catalog_folder, stock_file, kinds, batch_size)
        workers = [WorkerProcess(replace(settings, device=device)) for device in devices or (None,)]
        self._address, self._drain_seconds = (host, port), drain_seconds
        self._service = Service(workers, limits, batch_size, wait_ms / 1000)

    def run(self) -> None:
        """Answer; an address that cannot be listened at is an InputError."""
        logging.basicConfig(level=logging.INFO, format="padrec serve: %(message)s")
        host, port = self._address
        config = uvicorn.Config(
            self._service.app,
            host=host,
            port=port,
            log_level="error",
            access_log=False,
            timeout_keep_alive=75,  # longer than load balancers keep connections, or they would use closed ones
            timeout_graceful_shutdown=self._drain_seconds,
        )
        # The port listens once the workers are ready. If they cannot start, uvicorn logs it at length and ends with a
        # status of its own.
        logging.getLogger("uvicorn.error").addFilter(lambda record: self._service.failure is None)
        with _bound(host, port) as listening, contextlib.suppress(SystemExit):
            _AnnouncedServer(config).run(sockets=[listening])
        if self._service.failure is not None:
            raise self._service.failure


class _AnnouncedServer(uvicorn.Server):
    """Says where it answers, once it does."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
        _LOG.info("answers at http://%s:%d", host, self.config.port)


def _bound(host: str, port: int) -> socket.socket:
    # asyncio sends at once (TCP_NODELAY) only on sockets of this protocol; others may hold a body back for 40 ms.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise InputError(f"{host}:{port}: {error.strerror or error}, expected an address to listen at") from None
    return listening


def _kind(text: str) -> RequestKind:
    k, _, rest = text.partition(":")
    search, _, temperature = rest.partition(":")
    try:
        kind = RequestKind(int(k), search or "list", float(temperature or 0))  # type: ignore[arg-type]
    except ValueError:
        kind = RequestKind(0, "list", 0.0)
    if kind.k < 1 or kind.search not in ("list", "beam") or not 0 <= kind.temperature < float("inf"):
        raise InputError(f"warm_up {text!r}: expected K or K:search:temperature, such as 10 or 10:list:0.7")
    return kind
