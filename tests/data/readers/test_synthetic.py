from collections import Counter, defaultdict
from itertools import pairwise
from typing import Any

import pytest
import torch

from padrec.catalog import InputError
from padrec.data import Dataset, Interactions, ItemSequences, SyntheticReader


def read(**arguments: Any) -> tuple[Dataset, ItemSequences]:
    dataset = SyntheticReader(**arguments).read()
    assert isinstance(dataset.interactions, Interactions)
    return dataset, dataset.interactions.sequences


def test_the_same_seed_gives_the_same_data() -> None:
    (first, first_sequences), (second, second_sequences), (_, other) = read(seed=1), read(seed=1), read(seed=2)
    assert torch.equal(first.catalog.codes, second.catalog.codes)
    assert first.catalog.texts == second.catalog.texts
    assert torch.equal(first_sequences.items, second_sequences.items)
    assert not torch.equal(first_sequences.items[:1000], other.items[:1000])


def test_sizes_are_as_asked_for() -> None:
    dataset, sequences = read(n_users=500, n_items=300, codebook_sizes=(8, 32, 16, 4), mean_length=20, duplicates=0.1)
    assert (len(dataset.interactions.user_keys), dataset.catalog.n_items, dataset.catalog.n_leaves) == (500, 300, 270)
    assert all(found <= size for found, size in zip(dataset.catalog.codebook_sizes, (8, 32, 16, 4), strict=True))
    assert int(sequences.lengths.min()) == 5
    assert abs(float(sequences.lengths.double().mean()) - 20) < 3
    assert dataset.catalog.texts is not None
    assert len(set(dataset.catalog.texts)) == 300


def test_codes_follow_the_hierarchy() -> None:
    dataset, _ = read(noise=0.0, codebook_sizes=(16, 64, 64))
    codes = dataset.catalog.codes.long()
    pairs = codes[:, 0] * 64 + codes[:, 1]
    # 500 items spread freely over 1,024 pairs would use about 400 of them.
    assert len(pairs.unique()) < 250


def test_the_last_item_tells_the_next() -> None:
    _, sequences = read()
    following: dict[int, Counter[int]] = defaultdict(Counter)
    rows = [sequences.row(user).tolist() for user in range(len(sequences))]
    for row in rows[:1500]:
        for item, successor in pairwise(row):
            following[item][successor] += 1
    held_out = rows[1500:]
    hits = sum(row[-1] in [item for item, _ in following[row[-2]].most_common(3)] for row in held_out)
    assert hits / len(held_out) > 0.5  # chance: 0.006


def test_items_seldom_repeat() -> None:
    _, sequences = read()
    rows = [sequences.row(user).tolist() for user in range(len(sequences))]
    assert sum(len(row) - len(set(row)) for row in rows) < 0.02 * len(sequences.items)


def test_codebooks_half_full_still_give_different_ids() -> None:
    dataset, _ = read(n_items=128, codebook_sizes=(4, 8, 8), duplicates=0.0)
    assert dataset.catalog.n_leaves == 128


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mean_length": 2.0}, r"mean_length is 2\.0, expected at least 5"),
        ({"codebook_sizes": ()}, r"codebook_sizes \(\)"),
        ({"codebook_sizes": (4, 4)}, r"490 different semantic IDs from codebook_sizes \(4, 4\)"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SyntheticReader(**arguments)
