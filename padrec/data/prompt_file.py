"""Users to recommend to, from a file."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from padrec.catalog import Catalog, InputError
from padrec.data.item_sequences import ItemSequences
from padrec.data.json_file import read_json_lines

_LOG = logging.getLogger(__name__)
_EXPECTED = '{"user": key, "history": [item key, …]}'


@dataclass(frozen=True)
class UserHistories:
    """Users and what they interacted with.

    Attributes:
        user_keys: the users' own keys, one for each row; the data need not know them.
        histories: item indices in time order, one row per user, none empty.
    """

    user_keys: tuple[str, ...]
    histories: ItemSequences


def read_prompt_file(
    path: Path, catalog: Catalog, max_history: int, unknown_items: Literal["error", "drop"] = "error"
) -> UserHistories:
    """Read a JSON-lines file with a row `{"user": key, "history": [item key, …]}` for each user, oldest item first.

    Other fields of a row are not read.

    Args:
        path: the file.
        catalog: the items.
        max_history: histories keep at most their last so many items.
        unknown_items: what to do with items that the catalog lacks: refuse the file, or leave out those items, and the
            users who have no others, with a warning.

    Raises:
        InputError: the file is missing or empty, or a line is malformed, has no user or no history, or names an unknown
            item; or no user is left. Names the file and the line.
    """
    known = set(catalog.keys)
    users, rows = [], []
    n_dropped = 0
    for place, row in read_json_lines(path, _EXPECTED):
        user, history = _user_and_history(place, row)
        unknown = [key for key in history if key not in known]
        if unknown and unknown_items == "error":
            raise InputError(
                f'{place}: "history" of user {user!r}: item {unknown[0]!r} is not among the {catalog.n_items} items of '
                f"{catalog.source}, expected items of the catalog; unknown_items: drop leaves others out"
            )
        n_dropped += len(unknown)
        users.append(user)
        rows.append([catalog.index(key) for key in history if key in known][-max_history:])
    kept = [number for number, row in enumerate(rows) if row]
    if not kept:
        raise InputError(f"{path}: no user has an item among the {catalog.n_items} of {catalog.source}, expected some")
    if n_dropped:
        _LOG.warning(
            "%s: %d unknown items left out of the histories; %d of %d users have no others and get no list",
            path, n_dropped, len(rows) - len(kept), len(rows),
        )  # fmt: skip
    return UserHistories(tuple(users[row] for row in kept), ItemSequences.from_lists([rows[row] for row in kept]))


def _user_and_history(place: str, row: Mapping[str, object]) -> tuple[str, list[str]]:
    user, history = row.get("user"), row.get("history")
    if not isinstance(user, str | int) or isinstance(user, bool):
        raise InputError(f'{place}: "user" is {user!r}, expected a key as in {_EXPECTED}')
    if not isinstance(history, list) or not history:
        raise InputError(f'{place}: "history" of user {user!r} is {history!r}, expected at least one item key')
    return str(user), [str(key) for key in history]
