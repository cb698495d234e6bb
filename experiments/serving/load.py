"""What a service can carry, and what it does with more than that.

From the repository's root: python -m experiments.serving.load --folder FOLDER --output runs/serving/load
"""

import asyncio
import json
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from experiments.study import chosen_device, circumstances, report_markdown, run_command
from padrec.catalog import InputError
from padrec.evaluation.report import check_writable, markdown_table, write_report

_HISTORIES, _LONGEST = 200, 8
_WARM_UP = 0.2  # share of the overload after which memory should no longer grow
_END_SECONDS = 4.0  # of load around the signals at the end


def measure(
    folder: str,
    output: Path,
    minutes: float = 10,
    k: int = 10,
    overload: float = 1.5,
    clients: int = 64,
    options: list[str] | None = None,
    seed: int = 0,
) -> None:
    """Measure a service on this machine; writes report.json and report.md.

    One user alone; as many as it can carry; a steady load below that; an overload; the same with SIGTERM and SIGKILL.

    Args:
        folder: of the recommender.
        output: folder of the report, new or without one.
        minutes: of overload; the other parts take a tenth of it each.
        k: items in a list.
        overload: requests for each one that it can carry.
        clients: that keep asking, to find what it can carry.
        options: further ones of `padrec serve`, without their dashes: limits.queue=32.
        seed: of histories and arrivals.

    Raises:
        InputError: no time, or a report that is already there.
    """
    if not 0 < minutes < float("inf"):
        raise InputError(f"minutes {minutes}: expected more than 0")
    check_writable(output)
    arguments = [f"--{option}" for option in options or ()]
    found = asyncio.run(_measured(folder, arguments, 60 * minutes, k, overload, clients, seed))
    content = circumstances("experiments.serving.load", *chosen_device(None), seed) | found
    write_report(output, content, _markdown(content))


async def _measured(
    folder: str,
    arguments: list[str],
    seconds: float,
    k: int,
    overload: float,
    clients: int,
    seed: int,
) -> dict[str, Any]:
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as place:
        service = ServiceProcess(folder, [f"--warm_up={k}", *arguments], Path(place))
        load = await Load.of(service, k, chance)
        alone = await load.one_by_one(seconds / 10)
        figures = service.figures()
        decoder = figures["decoder_seconds_sum"] / figures["decoder_seconds_count"]
        start = time.monotonic()
        most = await load.as_fast_as_possible(clients, seconds / 10)
        can = len(most.seconds) / (time.monotonic() - start)
        steady_rate = 0.8 * can
        steady = await load.arriving(steady_rate, seconds / 10)
        memory = asyncio.create_task(service.watched_memory(seconds))
        over = await load.arriving(overload * can, seconds)
        first, last = await memory
        again = await load.arriving(0.5 * can, max(1.0, seconds / 50))
        ended = await load.until_signal(overload * can, service, signal.SIGTERM)
        accepted, answered = service.counts()
        killed = ServiceProcess(folder, [f"--warm_up={k}", *arguments], Path(place))
        half = await (await Load.of(killed, k, chance)).until_signal(overload * can, killed, signal.SIGKILL)
    return {
        "k": k,
        "arguments": arguments,
        "lists_per_second": can,
        "alone": alone.described() | {"decoder_ms": 1000 * decoder, "more_ms": 1000 * (alone.mean - decoder)},
        "clients": clients,
        "saturated": most.described(),
        "steady": {"offered_per_second": steady_rate} | steady.described(),
        "overload": {
            "offered_per_second": overload * can,
            "seconds": seconds,
            "megabytes_after_warm_up": first,
            "megabytes": last,
        }
        | over.described(),
        "after_overload": again.described(),
        "sigterm": ended.described() | {"accepted": accepted, "answered_in_all": answered},
        "lost": accepted - load.received,
        "sigkill": {"half_answers": half.half},
    }


@dataclass
class Outcome:
    """What became of some requests."""

    seconds: list[float] = field(default_factory=list)  # of each answered one
    refused: int = 0  # with status 503
    failed: int = 0  # without an answer, or with another status
    half: int = 0  # of those: an answer that breaks off
    differing: int = 0  # answered with another list than alone

    @property
    def mean(self) -> float:
        return float(np.mean(self.seconds)) if self.seconds else float("nan")

    def described(self) -> dict[str, Any]:
        p50, p95, p99 = np.percentile(self.seconds or [float("nan")], [50, 95, 99])
        return {
            "answered": len(self.seconds),
            "refused": self.refused,
            "failed": self.failed,
            "differing": self.differing,
            "latency_ms": {"p50": 1000 * p50, "p95": 1000 * p95, "p99": 1000 * p99},
        }


class ServiceProcess:
    """A `padrec serve` in a process of its own."""

    def __init__(self, folder: str, arguments: Sequence[str], place: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self._log = place / f"{self.port}.log"
        command = [sys.executable, "-m", "padrec", "serve", folder, f"--port={self.port}", *arguments]
        with self._log.open("w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        while self.process.poll() is None:
            time.sleep(0.1)
            with socket.socket() as trial:
                if trial.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
        raise InputError(f"padrec serve: {self._log.read_text()}, expected it to start")

    def figures(self) -> dict[str, float]:
        """What `/metrics` says so far, but what it divides by label."""
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
            text = b"".join(iter(lambda: connection.recv(1 << 16), b"")).decode()
        return {name: float(value) for name, value in re.findall(r"^padrec_(\w+) (\S+)$", text, re.M)}

    def counts(self) -> tuple[int, int]:
        """Requests accepted and answered, as the service tells in the end."""
        self.process.wait()
        answered, accepted = re.findall(r"answered (\d+) of (\d+) accepted", self._log.read_text())[-1]
        return int(accepted), int(answered)

    async def watched_memory(self, seconds: float) -> tuple[float, float]:
        """Megabytes of all its processes after the warm-up, and at the end."""
        await asyncio.sleep(_WARM_UP * seconds)
        first = self._megabytes()
        await asyncio.sleep((1 - _WARM_UP) * seconds)
        return first, self._megabytes()

    def _megabytes(self) -> float:
        own = self.process.pid
        children = Path(f"/proc/{own}/task/{own}/children").read_text().split()
        status = [Path(f"/proc/{process}/status").read_text() for process in (own, *children)]
        return sum(int(found) for text in status for found in re.findall(r"^VmRSS:\s+(\d+) kB", text, re.M)) / 1024


class Load:
    """Clients of one service.

    `expected` holds the item keys that the body of a number is to be answered with; others get what they got first.

    Attributes:
        received: requests answered with lists.
    """

    def __init__(
        self,
        port: int,
        bodies: Sequence[bytes],
        chance: random.Random,
        expected: Mapping[int, list[str]] | None = None,
    ) -> None:
        self._port, self._bodies, self._chance = port, bodies, chance
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._expected = dict(expected or {})
        self.received = 0

    @classmethod
    async def of(cls, service: ServiceProcess, k: int, chance: random.Random) -> "Load":
        """Clients with random histories, of the items that the service shows."""
        load = cls(service.port, [], chance)
        _, text = await load._exchange(b"GET /info HTTP/1.1\r\nHost: here\r\n\r\n")
        keys = [item["key"] for item in json.loads(text)["examples"]]
        histories = [chance.sample(keys, chance.randint(1, min(_LONGEST, len(keys)))) for _ in range(_HISTORIES)]
        load._bodies = request_bodies(histories, k)
        return load

    async def one_by_one(self, seconds: float) -> Outcome:
        """One client that asks again when it is answered; its answers are what the others' are compared with."""
        outcome, end = Outcome(), time.monotonic() + seconds
        while time.monotonic() < end:
            refused = outcome.refused
            await self._ask(outcome)
            await asyncio.sleep(1.0 if outcome.refused > refused else 0.0)  # as the service says
        return outcome

    async def as_fast_as_possible(self, clients: int, seconds: float) -> Outcome:
        """Several clients that do so."""
        parts = await asyncio.gather(*(self.one_by_one(seconds) for _ in range(clients)))
        seconds_of_all = [one for part in parts for one in part.seconds]
        names = ("refused", "failed", "half", "differing")
        return Outcome(seconds_of_all, *(sum(getattr(part, name) for part in parts) for name in names))

    async def arriving(self, rate: float, seconds: float) -> Outcome:
        """Requests that arrive at random, whether the others have been answered or not."""
        outcome, asking, due = Outcome(), set[asyncio.Task[None]](), time.monotonic()
        end = due + seconds
        while (due := due + self._chance.expovariate(rate)) < end:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            task = asyncio.create_task(self._ask(outcome))
            asking.add(task)
            task.add_done_callback(asking.discard)
        await asyncio.gather(*asking)
        return outcome

    async def until_signal(self, rate: float, service: ServiceProcess, number: signal.Signals) -> Outcome:
        """A load in whose midst the service is told to end."""
        load = asyncio.create_task(self.arriving(rate, _END_SECONDS))
        await asyncio.sleep(_END_SECONDS / 2)
        service.process.send_signal(number)
        outcome = await load
        await asyncio.to_thread(service.process.wait)
        return outcome

    async def _ask(self, outcome: Outcome) -> None:
        at = self._chance.randrange(len(self._bodies))
        body, start = self._bodies[at], time.perf_counter()
        head = b"POST /recommend HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        try:
            status, text = await self._exchange(head % len(body) + body)
        except asyncio.IncompleteReadError as error:
            outcome.half += bool(error.partial)
            outcome.failed += 1
        except OSError:
            outcome.failed += 1
        else:
            if status == 200:
                self.received += 1
                outcome.seconds.append(time.perf_counter() - start)
                keys = [item["key"] for item in json.loads(text)["lists"][0]]
                outcome.differing += self._expected.setdefault(at, keys) != keys
            elif status == 503:
                outcome.refused += 1
            else:
                outcome.failed += 1

    async def _exchange(self, request: bytes) -> tuple[int, bytes]:
        used = bool(self._idle)
        reader, writer = self._idle.pop() if used else await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
        except (OSError, asyncio.IncompleteReadError):
            writer.close()
            if not used:
                raise
            return await self._exchange(request)  # the service closes connections that were idle for long
        length = re.findall(rb"content-length: (\d+)", head.lower())
        body = await _whole(reader, int(length[0]))
        self._idle.append((reader, writer))
        return int(head.split()[1]), body


def request_bodies(histories: Sequence[Sequence[str]], k: int) -> list[bytes]:
    """Requests for K items that are not in the history, each for one user."""
    return [json.dumps({"histories": [one], "k": k, "exclude": "history"}).encode() for one in histories]


async def _whole(reader: asyncio.StreamReader, length: int) -> bytes:
    try:
        return await reader.readexactly(length)
    except asyncio.IncompleteReadError as error:
        raise asyncio.IncompleteReadError(error.partial or b"head", length) from None


def _markdown(content: dict[str, Any]) -> str:
    parts = {
        "one user alone": content["alone"],
        f"{content['clients']} clients that wait for their answers": content["saturated"],
        f"steady, {content['steady']['offered_per_second']:.1f} requests per second": content["steady"],
        f"overload, {content['overload']['offered_per_second']:.1f} requests per second": content["overload"],
        "after it": content["after_overload"],
        "SIGTERM in an overload": content["sigterm"],
    }
    rows = [
        [name, *(f"{part[x]:,}" for x in ("answered", "refused", "failed", "differing")), *_latencies(part)]
        for name, part in parts.items()
    ]
    header = ["", "answered", "refused", "failed", "other than alone", "p50 (ms)", "p95 (ms)", "p99 (ms)"]
    over, alone = content["overload"], content["alone"]
    facts = [
        f"It carries {content['lists_per_second']:.1f} lists per second (K = {content['k']}).",
        f"Alone, a list takes {alone['decoder_ms']:.1f} ms in the decoder and {alone['more_ms']:.2f} ms around it.",
        f"Memory in the overload: {over['megabytes_after_warm_up']:.0f} MB after a fifth of {over['seconds']:.0f} s, "
        f"{over['megabytes']:.0f} MB at its end.",
        f"Accepted requests whose answer did not arrive: {content['lost']}; half answers at SIGKILL: "
        f"{content['sigkill']['half_answers']}.",
    ]
    table = markdown_table(header, rows)
    return report_markdown(content, "# Load", " ".join(facts), table)


def _latencies(part: dict[str, Any]) -> list[str]:
    return [f"{part['latency_ms'][name]:,.1f}" for name in ("p50", "p95", "p99")]


if __name__ == "__main__":
    run_command(measure)
