"""Prompts to decode: for the users of a split, at random cuts of training sequences, or for the users of a file."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset

from padrec.catalog import Catalog, InputError
from padrec.data.batches import PromptBatch
from padrec.data.interactions import Split
from padrec.data.item_sequences import ItemSequences
from padrec.data.json_file import read_json_lines
from padrec.data.sequence_encoder import SequenceEncoder

_LOG = logging.getLogger(__name__)
_EXPECTED = '{"user": key, "history": [item key, …]}'


@dataclass(frozen=True, eq=False)
class PromptRows(Dataset[PromptBatch]):
    """Histories with their ground truth as batches."""

    histories: ItemSequences  # items of the prompts in time order, none empty
    truth: ItemSequences | None  # ground truth of each, any number of items; None if it is unknown
    users: Tensor  # row of each prompt's user in the datamodule's `user_keys`, int64 [n]; -1 for an unknown user
    catalog: Catalog
    encoder: SequenceEncoder  # with its list marker if it has one
    multiple_of: int = 1  # number of processes; padding rows make the size a multiple of it

    def __len__(self) -> int:
        return len(self.users) + -len(self.users) % self.multiple_of

    def __getitem__(self, row: int) -> PromptBatch:
        """Return a batch of one row."""
        return self.__getitems__([row])

    def __getitems__(self, rows: list[int]) -> PromptBatch:
        """Return the batch of these rows; a `DataLoader` calls it once per batch."""
        index = torch.tensor(rows)
        counted = index < len(self.users)
        index = index.where(counted, 0)
        history = self.histories.select(index).padded()
        encoded = self.encoder.encode(history, to_list=torch.ones_like(counted))
        truth = index.new_zeros(len(index), 0) if self.truth is None else self.truth.select(index).padded()
        truth = truth.where(counted[:, None], -1)
        leaves = self.catalog.leaf_of_item[truth.clamp(min=0)].where(truth >= 0, -1)
        return PromptBatch(
            tokens=encoded.tokens,
            slots=encoded.slots,
            lengths=encoded.lengths,
            users=self.users[index],
            history=history,
            relevant=_distinct(leaves),
            relevant_items=_distinct(truth),
            counted=counted,
        )


def _distinct(values: Tensor) -> Tensor:
    """Replace repetitions in a row by -1 and move every -1 to the row's end, keeping the order."""
    ordered, position = values.sort(dim=1, stable=True)
    repeated = torch.zeros_like(values, dtype=torch.bool)
    repeated.scatter_(1, position[:, 1:], ordered[:, 1:] == ordered[:, :-1])
    values = values.masked_fill(repeated, -1)
    return values.gather(1, (values < 0).long().argsort(dim=1, stable=True))


def evaluation_prompts(
    split: Split, part: Literal["validation", "test"], max_history: int
) -> tuple[ItemSequences, ItemSequences, Tensor]:
    """Histories of at most `max_history` items, ground truth, and rows in the split, ascending, of users with both."""
    histories, truth = (split.train, split.validation) if part == "validation" else (split.test_history, split.test)
    users = ((histories.lengths > 0) & (truth.lengths > 0)).nonzero().flatten()
    return histories.select(users).last(max_history), truth.select(users), users


def random_cut_prompts(
    train: ItemSequences, cuts: int, max_history: int, generator: torch.Generator
) -> tuple[ItemSequences, Tensor]:
    """Histories that end at random points of the training sequences, from which to generate lists for training.

    Each user's cut points are distinct and uniform in `1 … n`; a user with fewer than `cuts` items has them all. Beside
    the histories, of at most `max_history` items, come the users' rows, ascending with their cuts.
    """
    users = torch.arange(len(train)).repeat_interleave(train.lengths)
    shuffled = torch.rand(len(users), generator=generator, dtype=torch.float64).argsort()
    shuffled = shuffled[users[shuffled].argsort(stable=True)]  # each user's positions in random order, user by user
    rank = torch.arange(len(users)) - train.starts[users]
    chosen = shuffled[rank < cuts].sort().values
    ends = chosen + 1
    starts = torch.maximum(train.starts[users[chosen]], ends - max_history)
    return train.slices(starts, ends), users[chosen]


def read_prompt_file(
    path: Path, catalog: Catalog, max_history: int, unknown_items: Literal["error", "drop"] = "error"
) -> tuple[tuple[str, ...], ItemSequences]:
    """Read a JSON-lines file with a row `{"user": key, "history": [item key, …]}` per user, oldest item first.

    Other fields of a row are ignored. Returns the users' own keys, which may be unknown to the data, and at most the
    last `max_history` items of each, none empty. Items that are not in the catalog are an error, or are dropped with a
    warning, as are users without others.

    Raises:
        InputError: the file is missing or empty, a line is malformed, has no user or history, or names an unknown item,
            or no user is left; names the file and the line.
    """
    known = set(catalog.keys)
    users, rows = [], []
    n_dropped = 0
    for place, row in read_json_lines(path, _EXPECTED):
        user, history = _user_and_history(place, row)
        unknown = [key for key in history if key not in known]
        if unknown and unknown_items == "error":
            found = f"item {unknown[0]!r} is not among the {catalog.n_items} items of {catalog.source}"
            expected = "expected items of the catalog; unknown_items: drop leaves others out"
            raise InputError(f'{place}: "history" of user {user!r}: {found}, {expected}')
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
    return tuple(users[row] for row in kept), ItemSequences.from_lists([rows[row] for row in kept])


def _user_and_history(place: str, row: Mapping[str, object]) -> tuple[str, list[str]]:
    user, history = row.get("user"), row.get("history")
    if not isinstance(user, str | int) or isinstance(user, bool):
        raise InputError(f'{place}: "user" is {user!r}, expected a key as in {_EXPECTED}')
    if not isinstance(history, list) or not history:
        raise InputError(f'{place}: "history" of user {user!r} is {history!r}, expected at least one item key')
    return str(user), [str(key) for key in history]
