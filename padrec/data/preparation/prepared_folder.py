"""The folder that a preparation leaves."""

from pathlib import Path
from typing import Any

import pyarrow as pa

from padrec.catalog import InputError
from padrec.catalog.whole_output import check_digests
from padrec.data.json_file import read_json_object

FORMAT = 1
_COUNTS = {"items", "users", "interactions"}
SPLIT_TYPE = pa.dictionary(pa.int8(), pa.string())
INTERACTIONS = pa.schema(
    [("user", pa.int32()), ("item", pa.int32()), ("time", pa.timestamp("us", "UTC")), ("split", SPLIT_TYPE)]
)
USERS = pa.schema([("user", pa.string())])
ITEMS = pa.schema(
    [
        ("item", pa.string()),
        ("title", pa.string()),
        ("description", pa.string()),
        ("brand", pa.string()),
        ("categories", pa.list_(pa.string())),
    ]
)


class PreparedFolder:
    """The files of a prepared folder; it exists only as a whole.

    Interactions are sorted by user, then by time. `user` and `item` count the rows of the users' and the items' table,
    from 0; `split` is one of `train`, `validation` and `test`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.interactions = path / "interactions.parquet"
        self.users = path / "users.parquet"
        self.items = path / "items.parquet"
        self.summary = path / "prepared.json"

    def read_summary(self) -> dict[str, Any]:
        """Settings, counts, versions and the fingerprint of the files that were read.

        A folder that is damaged, has another format or was not written by a preparation is an InputError.
        """
        if not self.summary.is_file():
            found = "no prepared.json" if self.path.is_dir() else "no such folder"
            raise InputError(f"{self.path}: {found}, expected a folder written by `padrec prepare`")
        check_digests(self.path)
        summary: dict[str, Any] = read_json_object(self.summary, "of a preparation")
        if summary.get("format") != FORMAT:
            raise InputError(f"{self.summary}: format {summary.get('format')!r}, expected {FORMAT}: prepare it again")
        counts = summary.get("counts")
        if not isinstance(counts, dict) or not counts.keys() >= _COUNTS:
            raise InputError(f"{self.summary}: counts {counts!r}, expected those of {', '.join(sorted(_COUNTS))}")
        return summary
