"""A worker's process that needs no recommender, and whose answers do not fit into a pipe."""

from multiprocessing.connection import Connection

from padrec.serving import WorkerSettings
from padrec.serving.answer import Answer, AnsweredBatch

SIZE = 1 << 22


def answer_at_length(connection: Connection, settings: WorkerSettings) -> None:
    connection.send({"device": settings.device})
    try:
        while True:
            _, rows = connection.recv()
            connection.send(AnsweredBatch([Answer(200, b"x" * SIZE) for _ in rows]))
    except EOFError:
        pass


def refuse_to_start(connection: Connection, settings: WorkerSettings) -> None:
    connection.send(f"{settings.folder}: expected another folder")
    connection.poll(None)  # takes until the other end is closed
