"""`padrec serve` as a user runs it: a process of its own, its answers, its end."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from padrec import Recommender
from padrec.catalog import InputError
from padrec.cli import main
from padrec.cli.serve_command import _bound
from tests.serving.tiny_service import StubWorker


class Served:
    """A running `padrec serve`."""

    def __init__(self, shop: Path, *arguments: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        command = [sys.executable, "-m", "padrec", "serve", str(shop), f"--port={self.port}", *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.refused = 0
        while True:
            try:
                assert self.get("/health") == {"workers": 1}, "the port opens when the worker is ready"
            except urllib.error.URLError:
                assert self.process.poll() is None, self.process.communicate()[0]
                self.refused += 1
                time.sleep(0.05)
            else:
                break

    def get(self, path: str) -> Any:  # noqa: ANN401
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as reply:
            return json.load(reply)

    def ask(self, **fields: Any) -> dict[str, Any]:
        body = json.dumps(fields).encode()
        url, headers = f"http://127.0.0.1:{self.port}/recommend", {"content-type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=30) as reply:
            answer: dict[str, Any] = json.load(reply)
        return answer


@pytest.fixture(scope="module")
def served(shop: Path) -> Iterator[Served]:
    """One for all tests: it takes seconds to start. The last test ends it."""
    service = Served(shop, "--warm_up=4,3:beam", "--batch_size=4")
    yield service
    service.process.kill()
    service.process.wait()


def test_the_page_recommends_in_a_browser(served: Served, tmp_path: Path) -> None:
    browser = next((path for path in ("/usr/bin/chromium", "/usr/bin/google-chrome") if os.access(path, os.X_OK)), None)
    if browser is None:
        pytest.skip("needs a browser: Debian's package chromium")
    address = f"http://127.0.0.1:{served.port}/?item=item-3&item=item-8"
    headless = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}"]
    command = [browser, *headless, "--virtual-time-budget=20000", "--dump-dom", address]
    page = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    answer = served.ask(histories=[["item-3", "item-8"]], k=5, exclude="history")
    for item in answer["lists"][0]:
        assert item["title"] in page
    assert page.count("<tr") == 5
    assert page.count("target passes</span>") == 2
    assert 'class="drafted"' in page
    assert 'class="kept"' in page
    assert "round 1 of" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "folder"),
        ("{tmp}", "the worker cannot read it"),
        ("{shop} --warm_up ten", "warm_up 'ten': expected K or K:search:temperature"),
        ("{shop} --port 0", "port"),
        ("{shop} --port {busy}", "expected an address to listen at"),
        ("{shop} --limits.k 0", "Limits: k is 0, expected at least 1"),
        ("{shop} --nonsense 1", "nonsense"),
    ],
)
def test_wrong_input_gets_one_message(
    arguments: str,
    message: str,
    shop: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Refusing(StubWorker):
        async def start(self) -> dict[str, Any]:
            raise InputError("the worker cannot read it")

    monkeypatch.setattr("padrec.cli.serve_command.WorkerProcess", lambda settings: Refusing())
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        with pytest.raises(SystemExit) as caught:
            main(["serve", *arguments.format(shop=shop, tmp=tmp_path, busy=busy.getsockname()[1]).split()])
    assert caught.value.code == 2
    output = capfd.readouterr().err
    assert output.count("error: ") == 1
    assert message in output


def test_a_service_answers_until_it_is_told_to_end_and_drains_then(served: Served, shop: Path) -> None:
    assert served.refused > 0
    recommender = Recommender.from_pretrained(shop, device="cpu")
    histories = [[f"item-{number % 30}", f"item-{number * 7 % 30}"] for number in range(40)]
    expected = recommender.recommend(histories, k=4, exclude="history")
    # A client that sends half a request, and one that is gone before its answer, disturb nobody.
    half, gone = (socket.create_connection(("127.0.0.1", served.port)) for _ in range(2))
    half.sendall(b"POST /recommend HTTP/1.1\r\nHost: here\r\nContent-Length: 100\r\n\r\n{")
    body = b'{"histories": [["item-1"]]}'
    gone.sendall(b"POST /recommend HTTP/1.1\r\nHost: here\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    gone.close()
    with ThreadPoolExecutor(40) as pool:
        waiting = [pool.submit(served.ask, histories=[one], k=4, exclude="history") for one in histories]
        while served_lists(served) == 0:
            time.sleep(0.001)
        served.process.send_signal(signal.SIGTERM)
        answers = []
        for future in waiting:
            try:
                answers.append(future.result()["lists"][0])
            except (urllib.error.URLError, ConnectionError):
                answers.append(None)  # it had not been accepted
    accepted = [number for number, answer in enumerate(answers) if answer is not None]
    assert accepted
    for number in accepted:
        assert [item["key"] for item in answers[number]] == [item.key for item in expected[number]]
    half.close()
    assert served.process.wait(30) == -signal.SIGTERM, "after the last answer, as other commands end"
    output = served.process.communicate()[0]
    assert f"padrec serve: answers at http://127.0.0.1:{served.port}\n" in output
    (counts,) = re.findall(r"answered (\d+) of (\d+) accepted requests", output)
    assert counts[0] == counts[1]
    assert int(counts[0]) >= len(accepted)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", served.port))


def served_lists(served: Served) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{served.port}/metrics", timeout=30) as reply:
        figures = reply.read().decode()
    return next(float(line.split()[1]) for line in figures.splitlines() if line.startswith("padrec_lists_total "))


def test_answers_are_sent_without_waiting_for_acknowledgements() -> None:
    delays: list[int] = []

    def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken = writer.get_extra_info("socket")
        delays.append(taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    async def steps() -> None:
        server = await asyncio.start_server(accepted, sock=_bound("127.0.0.1", 0))
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        await reader.read()
        writer.close()
        server.close()

    asyncio.run(steps())
    assert delays[0] != 0
