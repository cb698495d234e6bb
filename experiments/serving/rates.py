"""How many requests a second a service answers in time, on this machine.

From the repository's root: python -m experiments.serving.rates --folder FOLDER --output runs/serving/rates
"""

import asyncio
import random
import signal
import tempfile
import time
from collections.abc import Awaitable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.serving.load import Load, Outcome, ServiceProcess, request_bodies
from experiments.study import chosen_device, circumstances, report_markdown, run_command
from padrec.catalog import InputError
from padrec.data.json_file import read_json_lines
from padrec.evaluation.report import check_writable, markdown_table, write_report

_USERS = 200


def measure(
    folder: str,
    output: Path,
    histories: str | None = None,
    rates: Sequence[float] = (600, 800, 1000, 1200, 1500),
    seconds: float = 10,
    most_ms: float = 60,
    k: int = 10,
    options: list[str] | None = None,
    seed: int = 0,
) -> None:
    """Offer requests at several rates, and see which are answered in time; writes report.json and report.md.

    One user alone comes first, for the same number of seconds.

    Args:
        folder: of the recommender.
        output: folder of the report, new or without one.
        histories: file of users as `padrec predict` reads it, of which 200 ask, or as it writes it with
            `exclude=history`: then answers are compared with its lists. None makes up random histories.
        rates: to offer, in requests per second.
        seconds: of each rate.
        most_ms: milliseconds within which 99 % of the answers are to come.
        k: items in a list.
        options: further ones of `padrec serve`, without their dashes: batch_size=16.
        seed: of histories and arrivals.

    Raises:
        InputError: a file that cannot be read, or a report that is already there.
    """
    check_writable(output)
    chance = random.Random(seed)
    users = None if histories is None else _drawn(Path(histories), chance)
    arguments = [f"--warm_up={k}", *(f"--{option}" for option in options or ())]
    found = asyncio.run(_measured(folder, arguments, users, rates, seconds, most_ms, k, chance))
    content = circumstances("experiments.serving.rates", *chosen_device(None), seed) | found
    write_report(output, content, _markdown(content))


def _drawn(file: Path, chance: random.Random) -> list[dict[str, Any]]:
    rows = [row for _, row in read_json_lines(file, 'such as {"user": 7, "history": ["a"]}')]
    if not all(isinstance(row.get("history"), list) and row["history"] for row in rows):
        raise InputError(f"{file}: a user without a history, expected item keys")
    return chance.sample(rows, min(_USERS, len(rows)))


def _load(port: int, users: Sequence[Mapping[str, Any]], k: int, chance: random.Random) -> Load:
    bodies = request_bodies([[str(key) for key in user["history"]] for user in users], k)
    predicted = {at: user["items"] for at, user in enumerate(users) if "items" in user}
    return Load(port, bodies, chance, predicted)


async def _measured(
    folder: str,
    arguments: list[str],
    users: Sequence[Mapping[str, Any]] | None,
    rates: Sequence[float],
    seconds: float,
    most_ms: float,
    k: int,
    chance: random.Random,
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place:
        start = time.monotonic()
        service = ServiceProcess(folder, arguments, Path(place))
        start_seconds = time.monotonic() - start
        try:
            load = await Load.of(service, k, chance) if users is None else _load(service.port, users, k, chance)
            await load.one_by_one(seconds / 10)  # after a first answer, nothing is left to load
            alone = await _row(service, load.one_by_one(seconds))
            rows = [{"offered_per_second": rate} | await _row(service, load.arriving(rate, seconds)) for rate in rates]
        finally:
            service.process.send_signal(signal.SIGTERM)
        accepted, _ = service.counts()
    return {
        "k": k,
        "arguments": arguments,
        "start_seconds": start_seconds,
        "most_ms": most_ms,
        "lists_per_second": max((row["offered_per_second"] for row in rows if _in_time(row, most_ms)), default=0),
        "alone": alone,
        "rates": rows,
        "lost": accepted - load.received,
    }


async def _row(service: ServiceProcess, load: Awaitable[Outcome]) -> dict[str, Any]:
    """What became of some requests, and how they were decoded."""
    before, start = service.figures(), time.monotonic()
    outcome = await load
    seconds, after = time.monotonic() - start, service.figures()
    spent = {name: after[name] - before[name] for name in before}
    batches = max(1.0, spent["decoder_seconds_count"])
    return outcome.described() | {
        "mean_ms": 1000 * outcome.mean,
        # Of a batch: in the decoder, in the worker around it, and from one to the next, with all between them.
        "decoder_ms": 1000 * spent["decoder_seconds_sum"] / batches,
        "host_ms": 1000 * spent["host_seconds_sum"] / batches,
        "batch_every_ms": 1000 * seconds / batches,
        "batch_users": spent["lists_total"] / batches,
    }


def _in_time(row: dict[str, Any], most_ms: float) -> bool:
    return bool(row["latency_ms"]["p99"] <= most_ms) and row["refused"] == row["failed"] == 0


def _markdown(content: dict[str, Any]) -> str:
    rows = {"one user alone": content["alone"]} | {f"{row['offered_per_second']:g}": row for row in content["rates"]}
    cells = [
        [name, *(f"{row[x]:,}" for x in ("answered", "refused", "failed", "differing")), *_milliseconds(row)]
        for name, row in rows.items()
    ]
    header = ["requests per second", "answered", "refused", "failed", "other than alone", "p50 (ms)", "p99 (ms)"]
    table = markdown_table([*header, "decoder, a batch (ms)", "around it", "a batch every", "users in it"], cells)
    alone = content["alone"]
    facts = (
        f"Up to {content['lists_per_second']:g} lists per second (K = {content['k']}) were written with 99 % of the "
        f"answers within {content['most_ms']:g} ms. Alone, a list takes {alone['decoder_ms']:.2f} ms in the decoder "
        f"and {alone['mean_ms'] - alone['decoder_ms']:.2f} ms around it. It took {content['start_seconds']:.0f} s to "
        f"start. Accepted requests whose answer did not arrive: {content['lost']}."
    )
    return report_markdown(content, "# Rates", facts, table)


def _milliseconds(row: dict[str, Any]) -> list[str]:
    of_batches = [row[name] for name in ("decoder_ms", "host_ms", "batch_every_ms", "batch_users")]
    return [f"{value:,.1f}" for value in (row["latency_ms"]["p50"], row["latency_ms"]["p99"], *of_batches)]


if __name__ == "__main__":
    run_command(measure)
