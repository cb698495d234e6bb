"""The interface of readers, and the data they return."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from padrec.catalog import Catalog, InputError
from padrec.data.interactions import Interactions, Split, leave_one_out


class Reader(Protocol):
    """Reads one on-disk format. With this protocol as its base class, a config can name a reader by its class alone."""

    def read(self) -> "Dataset":
        """Read and check everything.

        Raises:
            InputError: a file is missing or malformed, semantic IDs differ in length, a user has no items, or an item
                no semantic ID; names the file, the key and what was expected.
        """


@dataclass(frozen=True)
class Dataset:
    """A catalog and the interactions of its users.

    Raises:
        InputError: an item index outside the catalog.
    """

    name: str  # in reports
    catalog: Catalog
    interactions: Interactions | Split  # whole sequences, or the format's own split

    def __post_init__(self) -> None:
        found = self.interactions
        for part in found.parts:
            outside = ((part.items < 0) | (part.items >= self.catalog.n_items)).nonzero().flatten()
            if len(outside) > 0:
                position = int(outside[0])
                user = found.user_keys[int((part.ends <= position).sum())]
                problem = f"user {user!r} has item index {int(part.items[position])}"
                raise InputError(f"{found.source}: {problem}, expected 0 … {self.catalog.n_items - 1}")

    def split(self, short_users: Literal["error", "drop"] = "error") -> Split:
        """Return the format's own split, or else that of `leave_one_out`."""
        found = self.interactions
        return found if isinstance(found, Split) else leave_one_out(found, short_users)


def check_files(folder: Path, *required: str) -> None:
    """Refuse a folder without the files of a format, names or patterns such as `*.index.json`, before any is read."""
    expected = f"expected {', '.join(required)}"
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no such folder, {expected}; experiments/ read below the folder that the environment variable "
            "PADREC_DATA names, and docs/data.md says where the data come from"
        )
    if missing := [name for name in required if not any(folder.glob(name))]:
        raise InputError(f"{folder}: no {', '.join(missing)}, {expected}")
