"""The processes of `padrec serve` for `engines.py`, without a recommender."""

import json
import time
from multiprocessing.connection import Connection

import uvicorn

from experiments.serving.engines import BATCH_SECONDS, BATCH_SIZE, ITEMS, PORT
from padrec.serving import Service, WorkerProcess, WorkerSettings, worker
from padrec.serving.answer import Answer, AnsweredBatch


def answer_batches(connection: Connection, settings: WorkerSettings) -> None:
    connection.send({})
    while True:
        try:
            _, requests = connection.recv()
        except EOFError:
            return
        time.sleep(BATCH_SECONDS)
        bodies = [json.dumps({"lists": [ITEMS]}).encode() for _ in requests]
        connection.send(AnsweredBatch([Answer(200, body) for body in bodies]))


if __name__ == "__main__":
    worker.run_worker = answer_batches
    service = Service([WorkerProcess(WorkerSettings(""))], batch_size=BATCH_SIZE)
    uvicorn.run(service.app, host="127.0.0.1", port=PORT, log_level="error", access_log=False)
