import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn

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
