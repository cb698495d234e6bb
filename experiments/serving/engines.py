"""What two ways to serve add to a batch: LitServe (`pip install litserve`), and the processes of `padrec serve`.

Both have a worker that takes 6 ms for a batch of any size and answers with ten items a user.

From the repository's root: python -m experiments.serving.engines --output runs/serving/engines
"""

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from experiments.serving.load import Load
from experiments.study import circumstances, report_markdown, run_command
from padrec.catalog import InputError
from padrec.evaluation.report import check_writable, markdown_table, write_report

PORT, BATCH_SIZE, BATCH_SECONDS = 8790, 32, 0.006
ITEMS = [{"key": f"item-{i}", "title": f"plain lamp no. {i}", "score": -3.1234567, "ties": []} for i in range(10)]
_BODY = json.dumps({"histories": [["item-1", "item-2", "item-3"]], "k": 10}).encode()


def measure(output: Path, seconds: float = 10) -> None:
    """Measure one client alone, and many; writes report.json and report.md.

    Args:
        output: folder of the report, new or without one.
        seconds: for each row.

    Raises:
        InputError: a report that is already there, or an engine that does not start.
    """
    check_writable(output)
    rows = [row for engine in ("litserve", "padrec") for row in asyncio.run(_measured(engine, seconds))]
    content = circumstances("experiments.serving.engines", torch.device("cpu"), torch.float32, 0)
    content |= {"batch_ms": 1000 * BATCH_SECONDS, "batch_size": BATCH_SIZE, "rows": rows}
    header = ["engine", "clients", "CPU time an answer (ms)", "answers per second", "p50 (ms)", "p99 (ms)"]
    cells = [[str(row["engine"]), *(f"{row[x]:,.2f}" for x in list(row)[1:])] for row in rows]
    write_report(output, content, report_markdown(content, "# Engines", markdown_table(header, cells)))


async def _measured(engine: str, seconds: float) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", f"experiments.serving.{engine}_stub"]
    process = subprocess.Popen(command, start_new_session=True)
    try:
        load = Load(PORT, [_BODY], random.Random(0))
        await _started(load, process)
        rows = []
        for clients in (1, BATCH_SIZE, 2 * BATCH_SIZE):
            before = _cpu_seconds(process.pid)
            outcome = await load.as_fast_as_possible(clients, seconds)
            cpu = 1000 * (_cpu_seconds(process.pid) - before) / len(outcome.seconds)
            latency = outcome.described()["latency_ms"]
            row = {"engine": engine, "clients": clients, "cpu_ms": cpu, "per_second": len(outcome.seconds) / seconds}
            rows.append(row | {name: latency[name] for name in ("p50", "p99")})
        return rows
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # a SIGTERM leaves processes of LitServe behind
        process.wait()


def _cpu_seconds(session: int) -> float:
    """User and system time of all processes of a session so far."""
    total = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12]) if int(fields[3]) == session else 0
    return total / os.sysconf("SC_CLK_TCK")


async def _started(load: Load, process: "subprocess.Popen[bytes]") -> None:
    while (await load.one_by_one(0.1)).failed:
        if process.poll() is not None:
            raise InputError("an engine that does not start: expected litserve and padrec's extra `serve`")
        await asyncio.sleep(0.1)


if __name__ == "__main__":
    run_command(measure)
