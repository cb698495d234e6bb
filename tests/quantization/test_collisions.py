from itertools import permutations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from padrec.catalog import InputError
from padrec.quantization import ResidualKMeans, add_disambiguation_slot, count_collisions, reassign_collisions


class TableQuantizer:
    """Distances from tables of their own for every item; a vector is the item's number.

    Args:
        tables: for each slot, distances of every item to every code, `[n, K]`, whatever the prefix is.
    """

    def __init__(self, *tables: Tensor) -> None:
        self._tables = tables

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        return tuple(table.shape[1] for table in self._tables)

    def encode(self, vectors: Tensor) -> Tensor:
        return torch.stack([table[vectors[:, 0].long()].argmin(1) for table in self._tables], dim=1)

    def distances(self, vectors: Tensor, prefix: Tensor) -> Tensor:
        return self._tables[prefix.shape[1]][vectors[:, 0].long()]


def numbered(n: int) -> Tensor:
    return torch.arange(float(n))[:, None]


def all_different(codes: Tensor) -> bool:
    return len({tuple(row) for row in codes.tolist()}) == len(codes)


@given(data=st.data())
def test_no_two_items_share_an_id_and_nobody_gets_one_that_is_taken(data: st.DataObject) -> None:
    sizes = data.draw(st.sampled_from([(4,), (6,), (2, 3), (3, 2), (2, 2, 2), (3, 1, 2)]))
    n = data.draw(st.integers(1, sizes[-1] * (sizes[-2] if len(sizes) > 1 else 1)))
    n_taken = data.draw(st.integers(0, n - 1))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 999)))
    # Few different vectors, so that many items collide.
    vectors = torch.randint(0, 3, (n, 2), generator=generator).double()
    quantizer = ResidualKMeans(sizes).fit(vectors)
    whole = reassign_collisions(quantizer.encode(vectors), vectors, quantizer)
    assert all_different(whole)
    taken = whole[:n_taken]
    codes = quantizer.encode(vectors[n_taken:])
    resolved = reassign_collisions(codes, vectors[n_taken:], quantizer, taken)
    assert resolved.shape == codes.shape
    assert all_different(torch.cat([taken, resolved]))
    for found in (whole, resolved):
        assert bool(((found >= 0) & (found < torch.tensor(sizes))).all())
    alone = [row for row, code in enumerate(codes.tolist()) if code not in taken.tolist() + codes.tolist()[:row]]
    if len(alone) == len(codes) and len(sizes) > 1:
        crowded = torch.unique(torch.cat([taken, codes])[:, :-1], dim=0, return_counts=True)[1].max() > sizes[-1]
        assert bool(crowded) or torch.equal(resolved, codes)


def test_an_item_whose_id_is_taken_gets_the_nearest_free_code() -> None:
    last = torch.tensor([[0, 1, 2, 3.0], [3, 0, 9, 1]])
    quantizer = TableQuantizer(torch.zeros(2, 1), last)
    taken = torch.tensor([[0, 0], [0, 1], [0, 1]], dtype=torch.int32)
    resolved = reassign_collisions(quantizer.encode(numbered(2)), numbered(2), quantizer, taken)
    assert resolved.tolist() == [[0, 2], [0, 3]]


def test_items_that_do_not_collide_keep_their_ids() -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(300, 4, generator=generator)
    quantizer = ResidualKMeans((8, 8, 32)).fit(vectors)
    codes = quantizer.encode(vectors)
    resolved = reassign_collisions(codes, vectors, quantizer)
    _, leaf, sizes = torch.unique(codes, dim=0, return_inverse=True, return_counts=True)
    alone = sizes[leaf] == 1
    assert 0 < int(alone.sum()) < 300
    assert torch.equal(resolved[alone], codes[alone])
    assert torch.equal(resolved[:, :-1], codes[:, :-1])


@pytest.mark.parametrize("seed", range(5))
def test_last_codes_are_shared_out_at_the_least_distance(seed: int) -> None:
    last = torch.rand(4, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    last[:3, 2] -= 1  # the first three collide on code 2
    last[3, 4] -= 1  # the last one is alone on code 4
    quantizer = TableQuantizer(torch.zeros(4, 1), last)
    resolved = reassign_collisions(quantizer.encode(numbered(4)), numbered(4), quantizer)
    free = [0, 1, 2, 3]
    best = min(permutations(free, 3), key=lambda codes: sum(float(last[item, code]) for item, code in enumerate(codes)))
    assert resolved[:, 1].tolist() == [*best, 4]


def test_a_crowded_prefix_sends_away_those_that_lose_least() -> None:
    # Five items on prefix 0, which has three last codes; prefix 1 has room for two, prefix 2 for none.
    first = torch.tensor([[0, 9, 9.0], [0, 2, 1], [0, 8, 9], [0, 1, 9], [0, 7, 9], [9, 0, 9], [9, 9, 0], [9, 9, 0]])
    first = torch.cat([first, torch.tensor([[9, 9, 0.0]])])
    quantizer = TableQuantizer(first, torch.tensor([[0, 1, 2.0]]).expand(9, 3))
    resolved = reassign_collisions(quantizer.encode(numbered(9)), numbered(9), quantizer)
    assert resolved[:, 0].tolist() == [0, 1, 0, 1, 0, 1, 2, 2, 2]
    assert all_different(resolved)


def test_too_many_items_are_refused() -> None:
    one_slot = TableQuantizer(torch.zeros(3, 2))
    with pytest.raises(InputError, match=r"^3 items for 2 semantic IDs of one slot: add slots$"):
        reassign_collisions(one_slot.encode(numbered(3)), numbered(3), one_slot)
    three_slots = TableQuantizer(torch.zeros(5, 3), torch.zeros(5, 2), torch.zeros(5, 2))
    with pytest.raises(InputError, match=r"^5 items share the first codes \[0\], which have only 4 semantic IDs"):
        reassign_collisions(three_slots.encode(numbered(5)), numbered(5), three_slots)


def test_reassignment_leaves_its_input_alone() -> None:
    quantizer = TableQuantizer(torch.zeros(2, 2))
    codes = quantizer.encode(numbered(2))
    reassign_collisions(codes, numbered(2), quantizer)
    assert codes.tolist() == [[0], [0]]


@given(rows=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=20))
def test_the_disambiguation_slot_counts_the_items_of_an_id(rows: list[tuple[int, int]]) -> None:
    codes = torch.tensor(rows)
    resolved = add_disambiguation_slot(codes)
    assert resolved.tolist() == [[*row, rows[:index].count(row)] for index, row in enumerate(rows)]
    later = resolved[len(rows) // 2 :]
    assert add_disambiguation_slot(codes[len(rows) // 2 :], taken=resolved[: len(rows) // 2]).tolist() == later.tolist()
    assert count_collisions(codes) == len(rows) - len(set(rows))
    assert count_collisions(resolved) == 0
