import torch
from hypothesis import given
from hypothesis import strategies as st

from padrec.decoding import PreallocatedCache, additive_mask

_LAYERS, _BATCH, _CAPACITY, _HEADS, _SIZE = 2, 3, 7, 2, 4


def states(n_tokens: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(_BATCH, _HEADS, n_tokens, _SIZE, generator=generator)


def column_lists(n_columns: int) -> st.SearchStrategy[list[list[int]]]:
    row = st.permutations(range(_CAPACITY)).map(lambda order: order[:n_columns])
    return st.lists(row, min_size=_BATCH, max_size=_BATCH)


@given(rounds=st.lists(column_lists(2), min_size=1, max_size=4))
def test_states_are_written_where_the_caller_says(rounds: list[list[list[int]]]) -> None:
    cache = PreallocatedCache(_LAYERS, _BATCH, _CAPACITY)
    expected = torch.zeros(_LAYERS, 2, _BATCH, _HEADS, _CAPACITY, _SIZE)
    for number, columns in enumerate(rounds):
        cache.write_at(torch.tensor(columns))
        for layer in range(_LAYERS):
            new = [states(2, 100 * number + 10 * layer + kind) for kind in range(2)]
            for kind in range(2):
                for row, row_columns in enumerate(columns):
                    expected[layer, kind, row][:, row_columns] = new[kind][row]
            keys, values = cache.update(new[0], new[1], layer)
            assert torch.equal(keys, expected[layer, 0])
            assert torch.equal(values, expected[layer, 1])
    assert cache.get_mask_sizes(2, 0) == (_CAPACITY, 0)
    assert cache.get_seq_length() == 0


@given(source=column_lists(3), start=st.lists(st.integers(0, _CAPACITY - 3), min_size=_BATCH, max_size=_BATCH))
def test_kept_columns_move_together_in_every_layer(source: list[list[int]], start: list[int]) -> None:
    cache = PreallocatedCache(_LAYERS, _BATCH, _CAPACITY)
    everything = torch.arange(_CAPACITY).expand(_BATCH, -1)
    cache.write_at(everything)
    filled = [states(_CAPACITY, layer) for layer in range(_LAYERS)]
    for layer in range(_LAYERS):
        cache.update(filled[layer], -filled[layer], layer)
    target = [list(range(first, first + 3)) for first in start]
    cache.keep(torch.tensor(source), torch.tensor(target))
    # A write that rewrites one column shows what the others hold.
    untouched = torch.tensor([[first] for first in start])
    cache.write_at(untouched)
    for layer in range(_LAYERS):
        expected = filled[layer].clone()
        for row in range(_BATCH):
            expected[row][:, target[row]] = filled[layer][row][:, source[row]]
        first = torch.stack([expected[row][:, start[row] : start[row] + 1] for row in range(_BATCH)])
        keys, values = cache.update(first, -first, layer)
        assert torch.equal(keys, expected)
        assert torch.equal(values, -expected)


def test_an_empty_cache_has_nothing_to_keep() -> None:
    PreallocatedCache(1, 1, 2).keep(torch.tensor([[0]]), torch.tensor([[1]]))


def test_masks_hide_by_the_lowest_number() -> None:
    visible = torch.tensor([[[True, False]], [[False, True]]])
    lowest = torch.finfo(torch.float64).min
    assert additive_mask(visible, torch.float64).tolist() == [[[[0.0, lowest]]], [[[lowest, 0.0]]]]
    assert additive_mask(visible, torch.bfloat16).dtype == torch.bfloat16
