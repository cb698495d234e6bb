"""Time and memory of `padrec prepare` on made-up logs.

From the repository's root: python -m experiments.prepare.large_logs --output runs/prepare/large
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from experiments.study import check_positive, circumstances, report_markdown, run_command
from padrec import InputError
from padrec.evaluation.report import check_writable, markdown_table, write_report

_ROWS_AT_ONCE = 1_000_000
_SCHEMA = pa.schema([("user", pa.string()), ("item", pa.string()), ("time", pa.int64()), ("rating", pa.float64())])
_LEAST_RATING = 2
# Runs its arguments and prints their status, CPU seconds and peak memory. A process counts what the one that began it
# held then, so that it has to be a small one.
_LAUNCHER = """
import json, resource, subprocess, sys
status = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss]))
"""


def measure(
    output: Path, interactions: Sequence[int] = (10_000_000, 30_000_000), items: int = 250_000, seed: int = 0
) -> None:
    """Prepare logs of some sizes, each in a process of its own; writes report.json and report.md.

    Args:
        output: folder of the report, new or empty; the logs and what is prepared of them are written to it too.
        interactions: of each log.
        items: of every log.
        seed: of the logs.

    Raises:
        InputError: a size below 1, a report that is already there, a folder that holds something else, or a
            preparation that failed.
    """
    check_positive(interactions=interactions, items=[items])
    check_writable(output)
    # What is prepared already would cost nothing once more.
    if output.exists() and any(output.iterdir()):
        raise InputError(
            f"{output} holds something already, such as logs of a run that was cut: expected an empty folder"
        )
    content = circumstances("experiments.prepare.large_logs", torch.device("cpu"), torch.float32, seed)
    start = _run(["prepare", "--help"])  # what the program costs that does nothing
    content |= {"items": items, "min_rating": _LEAST_RATING, "start": start, "logs": []}
    for n_rows in interactions:
        path = output / f"log-{n_rows}.parquet"
        write_log(path, n_rows, items, seed)
        prepared = output / str(n_rows)
        cost = _run(_prepare(path, prepared))
        left = json.loads((prepared / "prepared.json").read_text(encoding="utf-8"))["counts"]
        content["logs"].append({"interactions": n_rows, "bytes": path.stat().st_size, "counts": left} | cost)
    write_report(output, content, _markdown(content))


def write_log(path: Path, n_rows: int, n_items: int, seed: int) -> None:
    """Write a Parquet log in which few users and items have many interactions and most have few.

    Args:
        path: of the file; its folder is made if missing.
        n_rows: interactions.
        n_items: items, at most.
        seed: of what is drawn.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(path, _SCHEMA) as writer:
        for piece in _pieces(n_rows, n_items, seed):
            writer.write_table(piece)


def _pieces(n_rows: int, n_items: int, seed: int) -> Iterator[pa.Table]:
    rng = np.random.default_rng(seed)
    n_users = max(1, n_rows // 8)
    for start in range(0, n_rows, _ROWS_AT_ONCE):
        size = min(_ROWS_AT_ONCE, n_rows - start)
        users = (rng.pareto(1.2, size) * n_users / 20).astype(np.int64) % n_users
        items = (n_items * rng.random(size) ** 3).astype(np.int64)
        columns = {
            "user": np.char.add("U", users.astype(str)),
            "item": np.char.add("I", items.astype(str)),
            "time": rng.integers(1_000_000_000, 1_700_000_000, size),
            "rating": rng.integers(1, 6, size).astype(float),
        }
        yield pa.table(columns, _SCHEMA)


def _prepare(log: Path, output: Path) -> list[str]:
    table = ["--source", "padrec.TableLog", "--source.interactions", f"[{log}]", "--source.rating", "rating"]
    return ["prepare", *table, "--min_rating", str(_LEAST_RATING), "--output", str(output)]


def _run(arguments: list[str]) -> dict[str, float]:
    """Seconds, CPU seconds and peak memory of `padrec` with these arguments.

    Raises:
        InputError: it failed.
    """
    started = time.perf_counter()
    command = [sys.executable, "-c", _LAUNCHER, sys.executable, "-m", "padrec", *arguments]
    status, cpu_seconds, kibibytes = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    if status != 0:
        raise InputError(f"padrec {' '.join(arguments)} ended with status {status}, expected 0")
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_mebibytes": kibibytes / 1024}


def _markdown(content: Mapping[str, Any]) -> str:
    rows = [
        [
            f"{log['interactions']:,}",
            f"{log['bytes'] / 1e6:,.0f}",
            f"{log['counts']['interactions']:,}",
            f"{log['counts']['users']:,}",
            f"{log['seconds']:.0f}",
            f"{log['cpu_seconds']:.0f}",
            f"{log['peak_mebibytes']:.0f}",
        ]
        for log in content["logs"]
    ]
    start = content["start"]
    start_columns = [f"{start[name]:.0f}" for name in ("seconds", "cpu_seconds", "peak_mebibytes")]
    rows.append(["no log, `--help`", "", "", "", *start_columns])
    header = ["interactions", "file (MB)", "left", "users", "seconds", "CPU seconds", "peak memory (MiB)"]
    about = f"Parquet, {content['items']:,} items, `min_rating: {content['min_rating']}`, the program's start included."
    title = "# Preparing large logs"
    return report_markdown(content, title, markdown_table(header, rows), about)


if __name__ == "__main__":
    run_command(measure)
