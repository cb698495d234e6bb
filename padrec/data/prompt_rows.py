"""Prompts to decode, each with its ground truth."""

from typing import Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset

from padrec.catalog import Catalog
from padrec.data.batches import PromptBatch
from padrec.data.item_sequences import ItemSequences
from padrec.data.sequence_encoder import SequenceEncoder
from padrec.data.splits import Split


class PromptRows(Dataset[PromptBatch]):
    """Histories with their ground truth, cut into batches by the dataloader.

    Args:
        histories: items of the prompts in time order, none empty.
        truth: ground truth of each, any number of items.
        users: row of each prompt's user in the datamodule's `user_keys`, int64 `[n]`; -1 for an unknown user.
        catalog: the items.
        encoder: writes them as tokens, and behind them its list marker.
        multiple_of: fills the set up with repeated rows that are not counted, so that its size is a multiple of this.
    """

    def __init__(
        self,
        histories: ItemSequences,
        truth: ItemSequences,
        users: Tensor,
        catalog: Catalog,
        encoder: SequenceEncoder,
        multiple_of: int = 1,
    ) -> None:
        self.histories = histories
        self.truth = truth
        self.users = users
        self.catalog = catalog
        self.encoder = encoder
        self._rows = len(users) + -len(users) % multiple_of

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, row: int) -> PromptBatch:
        """A batch of one row."""
        return self.__getitems__([row])

    def __getitems__(self, rows: list[int]) -> PromptBatch:
        """The batch of these rows; a `DataLoader` calls it once per batch."""
        index = torch.tensor(rows)
        counted = index < len(self.users)
        index = index.where(counted, 0)
        history = self.histories.select(index).padded()
        encoded = self.encoder.encode(history, to_list=torch.ones_like(counted))
        truth = self.truth.select(index).padded().where(counted[:, None], -1)
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
    """Replace what occurred earlier in its row by -1 and move every -1 to the row's end; order is kept."""
    earlier = torch.ones(values.shape[1], values.shape[1], dtype=torch.bool).tril(-1)
    repeated = ((values[:, :, None] == values[:, None, :]) & earlier).any(2)
    values = values.masked_fill(repeated, -1)
    return values.gather(1, (values < 0).long().argsort(dim=1, stable=True))


def evaluation_prompts(
    split: Split, part: Literal["validation", "test"], max_history: int
) -> tuple[ItemSequences, ItemSequences, Tensor]:
    """Prompts of all users who have both a history and a ground truth in this part.

    Returns:
        Histories of at most `max_history` items, ground truth, and the users' rows in the split, in ascending order.
    """
    histories, truth = (split.train, split.validation) if part == "validation" else (split.test_history, split.test)
    users = ((histories.lengths > 0) & (truth.lengths > 0)).nonzero().flatten()
    return histories.select(users).last(max_history), truth.select(users), users


def random_cut_prompts(
    train: ItemSequences, cuts: int, max_history: int, generator: torch.Generator
) -> tuple[ItemSequences, ItemSequences, Tensor]:
    """Prompts that end at random points of the training sequences, to generate lists for training.

    Each user's cut points are different ones of `1 … n`, uniformly drawn; a user with fewer than `cuts` items has
    them all.

    Returns:
        Histories of at most `max_history` items, empty ground truths, and the users' rows, ascending with their cuts.
    """
    users = torch.arange(len(train)).repeat_interleave(train.lengths)
    shuffled = torch.rand(len(users), generator=generator, dtype=torch.float64).argsort()
    shuffled = shuffled[users[shuffled].argsort(stable=True)]  # each user's positions in random order, user by user
    rank = torch.arange(len(users)) - train.starts[users]
    chosen = shuffled[rank < cuts].sort().values
    ends = chosen + 1
    starts = torch.maximum(train.starts[users[chosen]], ends - max_history)
    nothing = ItemSequences.from_lists([[]] * len(chosen))
    return train.slices(starts, ends), nothing, users[chosen]
