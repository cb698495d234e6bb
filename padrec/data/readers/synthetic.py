"""Synthetic data with a learnable structure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from padrec.catalog import (
    Catalog,
    ClosedUnitInterval,
    InputError,
    PositiveInt,
    ProperShare,
    Range,
    Seed,
    check_arguments,
)
from padrec.data.interactions import Interactions
from padrec.data.item_sequences import ItemSequences
from padrec.data.readers.reader import Dataset, Reader

_MIN_LENGTH = 5
_SUCCESSORS = (0.6, 0.25, 0.15)  # probability of an item's first, second and third successor
_FOLLOW = 0.8  # share of steps that follow the last item instead of opening another interest
_MAX_INTERESTS = 3
_RETRIES = 4
_ADJECTIVES = ("plain", "red", "small", "heavy", "green", "round", "old", "bright", "soft", "tall", "blue", "folding")
_NOUNS = ("lamp", "kettle", "chair", "lantern", "brush", "basket", "clock", "blanket", "mirror", "drum", "tent", "vase")


@dataclass(frozen=True)
class SyntheticReader(Reader):
    """Generates hierarchical items and users with interests; reads no file.

    *Items.* The first code is the item's category; each node of the hierarchy uses few codes of the next slot. A share
    `noise` of the codes after the first is random, and a share `duplicates` of the items repeats another item's whole
    semantic ID.

    *Users.* A user is interested in one to three categories. Usually the next item is one of three fixed successors of
    the last one in its category; otherwise it comes from any of the user's interests or, with probability `noise`, from
    the whole catalog. Items seldom repeat. Sequences have at least five items and geometrically distributed lengths.

    The same arguments give the same data.

    Args:
        n_users: number of users.
        n_items: number of items.
        codebook_sizes: codes in each slot; the first is the number of categories.
        mean_length: mean number of interactions of a user, at least 5; the longest is at most five times as long.
        duplicates: share of items with another item's semantic ID, in [0, 1).
        noise: share of random codes and interactions, in [0, 1].
        seed: seed of all randomness.

    Raises:
        InputError: an argument out of range, or codebooks too small for that many semantic IDs.
    """

    n_users: PositiveInt = 2000
    n_items: PositiveInt = 500
    codebook_sizes: Sequence[PositiveInt] = (16, 16, 16)
    mean_length: Annotated[float, Range(f"at least {_MIN_LENGTH}", lambda length: length >= _MIN_LENGTH)] = 12.0
    duplicates: ProperShare = 0.02
    noise: ClosedUnitInterval = 0.1
    seed: Seed = 0

    def __post_init__(self) -> None:
        check_arguments(SyntheticReader, vars(self))
        # With half of the IDs free, drawing until all differ ends soon.
        if 2 * self._n_distinct > math.prod(self.codebook_sizes):
            found = f"{self._n_distinct} different semantic IDs from codebook_sizes {self.codebook_sizes}"
            raise InputError(f"synthetic data: {found}, expected room for at least twice as many")

    @property
    def _n_distinct(self) -> int:
        return max(1, self.n_items - int(self.n_items * self.duplicates))

    def read(self) -> Dataset:
        """Generate the data."""
        generator = torch.Generator().manual_seed(self.seed)
        codes = self._codes(generator)
        keys = [f"item-{number}" for number in range(self.n_items)]
        adjectives = codes[:, 1].tolist() if codes.shape[1] > 1 else [0] * len(codes)
        titles = [
            f"{_ADJECTIVES[second % len(_ADJECTIVES)]} {_NOUNS[first % len(_NOUNS)]} no. {number}"
            for number, (first, second) in enumerate(zip(codes[:, 0].tolist(), adjectives, strict=True))
        ]
        catalog = Catalog(codes, keys, titles, source="synthetic data")
        users = tuple(f"user-{number}" for number in range(self.n_users))
        sequences = self._sequences(codes[:, 0], generator)
        return Dataset("synthetic", catalog, Interactions(users, sequences, source="synthetic data"))

    def _codes(self, generator: torch.Generator) -> Tensor:
        """Semantic IDs, int64 `[n_items, L]`."""
        n_distinct = self._n_distinct
        # A hash of a node's path decides where its few codes begin in the next codebook.
        salts = torch.randint(1, 2**20, (len(self.codebook_sizes),), generator=generator).tolist()
        codes = self._draw_codes(n_distinct, salts, self.noise, generator)
        attempt = 0
        while len(repeated := _repeated_rows(codes)):
            attempt += 1
            # A node of the hierarchy may be full; more and more noise reaches the free IDs.
            noise = min(1.0, self.noise + attempt / 10)
            codes[repeated] = self._draw_codes(len(repeated), salts, noise, generator)
        copied = torch.randint(n_distinct, (self.n_items - n_distinct,), generator=generator)
        codes = torch.cat([codes, codes[copied]])
        return codes[torch.randperm(self.n_items, generator=generator)]

    def _draw_codes(self, count: int, salts: list[int], noise: float, generator: torch.Generator) -> Tensor:
        fan_out = max(1.0, self._n_distinct ** (1 / len(self.codebook_sizes)))
        slots: list[Tensor] = []
        path = torch.zeros(count, dtype=torch.long)
        for slot, (size, salt) in enumerate(zip(self.codebook_sizes, salts, strict=True)):
            anywhere = torch.randint(size, (count,), generator=generator)
            rank = (torch.empty(count).exponential_(generator=generator) * fan_out / 3).long()
            random = torch.rand(count, generator=generator) < noise
            code = anywhere if slot == 0 else torch.where(random, anywhere, (path % size + rank) % size)
            slots.append(code)
            path = ((path * 31 + code + 1) * salt) % (2**31 - 1)
        return torch.stack(slots, dim=1)

    def _sequences(self, categories: Tensor, generator: torch.Generator) -> ItemSequences:
        """One row per user, in time order."""
        successors = _successors(categories, generator)  # [n_items, successors]
        by_category = categories.argsort(stable=True)
        sizes = categories.bincount(minlength=self.codebook_sizes[0])
        # Interests are drawn by item, which excludes empty categories.
        interests = categories[torch.randint(self.n_items, (self.n_users, _MAX_INTERESTS), generator=generator)]
        n_interests = torch.randint(1, _MAX_INTERESTS + 1, (self.n_users,), generator=generator)
        spread = torch.empty(self.n_users).exponential_(generator=generator) * (self.mean_length - _MIN_LENGTH)
        lengths = (_MIN_LENGTH + spread.round().long()).clamp(max=int(5 * self.mean_length))
        users = torch.arange(self.n_users)
        items = torch.full((self.n_users, int(lengths.max())), -1)

        def draw(last: Tensor | None) -> Tensor:
            """The next item of every user, int64 `[n_users]`."""
            interest = interests[users, (torch.rand(self.n_users, generator=generator) * n_interests).long()]
            within = (torch.rand(self.n_users, generator=generator) * sizes[interest]).long()
            chosen = by_category[(sizes.cumsum(0) - sizes)[interest] + within]
            if last is not None:
                weights = torch.tensor(_SUCCESSORS)
                which = torch.multinomial(weights, self.n_users, replacement=True, generator=generator)
                follow = torch.rand(self.n_users, generator=generator) < _FOLLOW
                chosen = torch.where(follow, successors[last, which], chosen)
            random = torch.rand(self.n_users, generator=generator) < self.noise
            return torch.where(random, torch.randint(self.n_items, (self.n_users,), generator=generator), chosen)

        for step in range(items.shape[1]):
            last = items[:, step - 1] if step else None
            chosen = draw(last)
            for _ in range(_RETRIES):
                seen = (items[:, :step] == chosen[:, None]).any(1)
                chosen = torch.where(seen, draw(last), chosen)
            items[:, step] = chosen
        whole = ItemSequences(items.flatten(), torch.arange(self.n_users + 1) * items.shape[1])
        return whole.slices(whole.starts, whole.starts + lengths)


def _repeated_rows(codes: Tensor) -> Tensor:
    """Indices of the rows that repeat an earlier one."""
    inverse = torch.unique(codes, dim=0, return_inverse=True)[1]
    order = inverse.argsort(stable=True)
    repeated = torch.zeros(len(codes), dtype=torch.bool)
    repeated[order[1:]] = inverse[order[1:]] == inverse[order[:-1]]
    return repeated.nonzero().flatten()


def _successors(categories: Tensor, generator: torch.Generator) -> Tensor:
    """The items of the same category that may follow each item, int64 `[n_items, successors]`."""
    successors = torch.empty(len(categories), len(_SUCCESSORS), dtype=torch.long)
    for column in range(len(_SUCCESSORS)):
        # A random cycle through each category, so that every item is a successor equally often.
        order = torch.randperm(len(categories), generator=generator)
        order = order[categories[order].argsort(stable=True)]
        following = order.roll(-1)
        first_of_category = torch.searchsorted(categories[order], categories[order])
        ends = categories[following] != categories[order]
        ends[-1] = True
        successors[order, column] = torch.where(ends, order[first_of_category], following)
    return successors
