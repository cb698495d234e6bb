import asyncio
import random
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn

from experiments.serving.load import Load
from padrec.serving import Limits, Service
from tests.serving.tiny_service import StubWorker


@pytest.fixture
def port() -> Iterator[int]:
    """Of a service that answers with the number of the batch, as a list of one item."""
    config = uvicorn.Config(Service([Numbered()], Limits(users=4, queue=4)).app, port=0, log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join()


class Numbered(StubWorker):
    def body(self, number: int) -> dict[str, object]:
        return {"lists": [[{"key": str(number)}]]}


def test_clients_count_what_became_of_their_requests(port: int) -> None:
    async def steps() -> None:
        load = Load(port, [b'{"histories": [["item-1"]]}'], random.Random(0))
        alone = await load.one_by_one(0.2)
        assert len(alone.seconds) == load.received > 1
        assert alone.differing == len(alone.seconds) - 1, "the first answer is what the others are compared with"
        over = await load.arriving(2000, 0.3)
        assert over.refused > 0
        assert over.failed == over.half == 0
        assert load.received == len(alone.seconds) + len(over.seconds)
        assert (await Load(port, [b"{"], random.Random(0)).one_by_one(0.05)).failed > 0

    asyncio.run(steps())
