"""A log in memory, which counts how often it is read."""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ibis
import pyarrow as pa

from padrec.data.logs.source import ItemText, LogSource, LogTable
from tests.data.preparation.reference_preparation import Event

_SCHEMA = pa.schema([("user", pa.string()), ("item", pa.string()), ("time", pa.int64()), ("rating", pa.float64())])


def random_log(n_events: int = 900, n_users: int = 60, n_items: int = 25, seed: int = 0) -> list[Event]:
    draw = random.Random(seed)
    return [
        (f"u{draw.randrange(n_users)}", f"i{draw.randrange(n_items)}", draw.randrange(200), draw.randint(1, 5))
        for _ in range(n_events)
    ]


class MadeUpLog(LogSource):
    """Events in two tables, with a file that stands for them."""

    def __init__(self, events: Sequence[Event], file: Path, texts: Sequence[ItemText] = ()) -> None:
        self.events = list(events)
        self.texts = list(texts)
        self.file = file
        self.reads = 0
        file.write_text(repr(self.events))

    def files(self) -> Sequence[Path]:
        return [self.file]

    def settings(self) -> dict[str, object]:
        return {}

    def interactions(self, reader: Any) -> Iterator[LogTable]:  # noqa: ANN401
        self.reads += 1
        half = (len(self.events) + 1) // 2
        for events in (self.events[:half], self.events[half:]):
            if events:
                columns = [
                    pa.array(column, field.type)
                    for column, field in zip(zip(*events, strict=True), _SCHEMA, strict=True)
                ]
                rows = ibis.memtable(pa.table(columns, _SCHEMA))
                yield LogTable(self.file, rows.mutate(wrong=ibis.null(str)))

    def item_texts(self, reader: Any) -> Iterator[ItemText]:  # noqa: ANN401
        return iter(self.texts)
