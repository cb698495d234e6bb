"""Processes of their own, two of which communicate by gloo."""

import os
import socket
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import torch
from torch.distributed import destroy_process_group, is_initialized

# Forked from a server that has the libraries loaded: spawned processes spend most of their time on importing them.
PROCESSES = get_context("forkserver")
PROCESSES.set_forkserver_preload(["lightning.pytorch.cli", "padrec.drafts", "padrec.evaluation", "padrec.targets"])


def on_two_processes(work: Callable[..., None], *arguments: Any) -> None:
    """Call `work(rank, *arguments)` on two new processes, in which trainers with `devices=2, strategy="ddp"` meet."""
    with ProcessPoolExecutor(2, mp_context=PROCESSES) as processes:
        port = _free_port()
        list(processes.map(_run, range(2), [work] * 2, [port] * 2, [arguments] * 2))


def _run(rank: int, work: Callable[..., None], port: int, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_RANK": str(rank), "NODE_RANK": "0"}
    try:
        work(rank, *arguments)
    finally:
        if is_initialized():
            destroy_process_group()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
