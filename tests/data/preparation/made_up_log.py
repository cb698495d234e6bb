"""A log in memory, which counts how often it is read."""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from padrec.data.logs import LOG_SCHEMA, ItemText, LogChunk, LogSource
from tests.data.preparation.reference_preparation import Event


def random_log(n_events: int = 900, n_users: int = 60, n_items: int = 25, seed: int = 0) -> list[Event]:
    draw = random.Random(seed)
    return [
        (f"u{draw.randrange(n_users)}", f"i{draw.randrange(n_items)}", draw.randrange(200), draw.randint(1, 5))
        for _ in range(n_events)
    ]


class MadeUpLog(LogSource):
    """Events in pieces, with a file that stands for them."""

    def __init__(self, events: Sequence[Event], file: Path, texts: Sequence[ItemText] = (), piece: int = 70) -> None:
        self.events = list(events)
        self.texts = list(texts)
        self.piece = piece
        self.file = file
        self.reads = 0
        file.write_text(repr(self.events))

    def files(self) -> Sequence[Path]:
        return [self.file]

    def settings(self) -> dict[str, object]:
        return {}

    def interactions(self) -> Iterator[LogChunk]:
        self.reads += 1
        for start in range(0, len(self.events), self.piece):
            columns = zip(*self.events[start : start + self.piece], strict=True)
            arrays = [pa.array(column, field.type) for column, field in zip(columns, LOG_SCHEMA, strict=True)]
            yield LogChunk(pa.table(arrays, LOG_SCHEMA), min(1.0, (start + self.piece) / len(self.events)))

    def item_texts(self) -> Iterator[ItemText]:
        return iter(self.texts)
