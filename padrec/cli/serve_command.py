"""The command that answers requests over HTTP."""

import logging
import socket
from pathlib import Path

from padrec.catalog import InputError, NonNegativeFloat, PositiveInt
from padrec.cli.one_message_parser import PARSER_MODE, OneMessageParser

try:
    import uvicorn

    from padrec.serving import Limits, Service, WorkerProcess, WorkerSettings
    from padrec.serving.recommendation_request import RequestKind
except ImportError as error:
    raise InputError(f"padrec serve without {error.name}: expected the extra, `pip install 'padrec[serve]'`") from None


def serve(arguments: list[str]) -> None:
    """Run `padrec serve` with these arguments."""
    about, _, _ = (run.__doc__ or "").partition("Args:")
    parser = OneMessageParser(prog="padrec serve", description=about, parser_mode=PARSER_MODE)
    parser.add_argument("-c", "--config", action="config", help="Path to a configuration file in json or yaml format.")
    parser.add_function_arguments(run, as_group=False, as_positional=True)
    settings = parser.instantiate(parser.parse_args(arguments))
    settings.pop("config")
    run(**settings)


def run(
    folder: str,
    host: str = "127.0.0.1",
    port: PositiveInt = 8000,
    devices: list[str] | None = None,
    catalog: str | None = None,
    stock: str | None = None,
    batch_size: PositiveInt = 32,
    wait_ms: NonNegativeFloat = 0.0,
    warm_up: list[str] | None = None,
    drain_seconds: PositiveInt = 60,
    limits: Limits | None = None,
) -> None:
    """Answer requests for recommendations over HTTP, until SIGTERM or Ctrl-C.

    The page at / and the description of the API at /docs say how.

    Args:
        folder: of `padrec export`, or a repository of the Hugging Face hub.
        host: address to listen at; 0.0.0.0 for all.
        port: to listen at.
        devices: a worker for each, such as cuda:0; by default one for each GPU, or one on the CPU.
        catalog: folder of `Catalog.save` with the items to recommend; replace it, and it is taken over.
        stock: file with the keys of items out of stock, one a line; replace it, and it is taken over.
        batch_size: users decoded together.
        wait_ms: how long a batch that is not full waits for more requests, in milliseconds; batches gather while
            the one before is decoded, so 0 serves most loads.
        warm_up: kinds of requests to record before the port opens, as K, or K:search:temperature.
        drain_seconds: after a SIGTERM, for the requests that were accepted.
        limits: what is refused.
    """
    logging.basicConfig(level=logging.INFO, format="padrec serve: %(message)s")
    from padrec.recommender_folder import RecommenderFolder, pretrained_folder

    place = pretrained_folder(folder)
    RecommenderFolder.open(place)  # what is wrong with it is said here, by one process
    kinds = tuple(_kind(text) for text in warm_up or ["10"])
    watched = {name: None if path is None else Path(path) for name, path in [("catalog", catalog), ("stock", stock)]}
    workers = [
        WorkerProcess(WorkerSettings(place, device, warm_up=kinds, batch_size=batch_size, **watched))
        for device in devices or _devices()
    ]
    service = Service(workers, limits, batch_size, wait_ms / 1000)
    config = uvicorn.Config(service.app, log_level="warning", timeout_graceful_shutdown=drain_seconds, access_log=False)
    with _bound(host, port) as listening:  # it listens once the workers are ready
        server = uvicorn.Server(config)
        server.run(sockets=[listening])


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise InputError(f"{host}:{port}: {error.strerror or error}, expected an address to listen at") from None
    return listening


def _devices() -> list[str]:
    import torch

    return [f"cuda:{number}" for number in range(torch.cuda.device_count())] or ["cpu"]


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
