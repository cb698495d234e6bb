"""The suffix array beside plain search through the texts."""

from collections.abc import Sequence

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from padrec.drafts.retrieval import SuffixIndex, TokenPool
from padrec.drafts.retrieval.suffix_index import find_ranges, suffix_ranks
from padrec.drafts.retrieval.token_pool import PoolTexts
from padrec.drafts.retrieval.triton_suffix_search import triton_find_ranges
from tests.kernel_device import DEVICE

_TEXT = st.lists(st.integers(0, 2), min_size=1, max_size=8)
_TEXTS = st.lists(st.tuples(_TEXT, st.integers(0, 2)), min_size=1, max_size=12)
_DEVICE = torch.device("cpu")


def pool_of(texts: Sequence[tuple[Sequence[int], int]]) -> TokenPool:
    pool = TokenPool(500, n_groups=3)
    for text, group in texts:
        pool.add(text, group)
    return pool


@settings(max_examples=50, deadline=None)
@given(texts=_TEXTS, depth=st.sampled_from([1, 2, 4, 8]))
def test_ranks_order_suffixes_as_lists_compare(texts: list[tuple[list[int], int]], depth: int) -> None:
    found = PoolTexts.of([text for text, _ in texts], [0] * len(texts))
    suffixes = [text[start:][:depth] for text, _ in texts for start in range(len(text) + 1)]
    distinct = sorted({tuple(suffix) for suffix in suffixes})
    ranks = suffix_ranks(found.tokens, found.lengths, depth)
    order = sorted(range(len(suffixes)), key=lambda place: suffixes[place])
    assert [distinct.index(tuple(suffix)) for suffix in suffixes] == dense(ranks.tolist())
    assert sorted(ranks.tolist()) == [ranks.tolist()[place] for place in order]


def dense(ranks: list[int]) -> list[int]:
    distinct = sorted(set(ranks))
    return [distinct.index(rank) for rank in ranks]


def occurrences(pool: TokenPool, context: Sequence[int], group: int | None) -> dict[int, int]:
    """How often each place of the pool follows the context, in one group or in all."""
    texts, start, found = pool.texts, 0, {}
    for length, own, count in zip(texts.lengths.tolist(), texts.groups.tolist(), texts.counts.tolist(), strict=True):
        text = texts.tokens[start : start + length].tolist()
        for place in range(len(context), length):
            if (group is None or own == group) and text[place - len(context) : place] == list(context):
                found[start + place] = count
        start += length
    return found


@settings(max_examples=100, deadline=None)
@given(texts=_TEXTS, context=st.lists(st.integers(0, 2), min_size=1, max_size=6), group=st.integers(0, 2))
def test_all_places_after_every_context_are_found(
    texts: list[tuple[list[int], int]], context: list[int], group: int
) -> None:
    pool = pool_of(texts)
    index = SuffixIndex(len(pool.texts.tokens) + 3, 3, 8, _DEVICE)
    index.load(pool.texts)
    padded = torch.tensor([[0] * (6 - len(context)) + context])
    found = index.find(padded, torch.tensor([len(context)]), torch.tensor([group]), 400)
    expected = []  # length, in the own group or not, place, count
    for length in range(len(context), 0, -1):
        for searched in (group, None):
            after = occurrences(pool, context[len(context) - length :], searched)
            expected.append(sorted((length, place, float(count)) for place, count in after.items()))
    lengths, places, counts = (values[0].tolist() for values in (found.lengths, found.places, found.counts))
    rows = [row for row in zip(lengths, places, counts, strict=True) if row[0] > 0]
    taken = 0
    for segment in expected:
        assert sorted(rows[taken : taken + len(segment)]) == segment
        taken += len(segment)
    assert taken == len(rows)


def assert_kernel_finds_the_same_ranges(index: SuffixIndex, n_groups: int, longest: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    context = torch.randint(3, (4, longest), generator=generator).to(DEVICE)
    known = torch.randint(longest + 1, (4,), generator=generator).to(DEVICE)
    bounds = index._bounds[torch.randint(n_groups, (4,), generator=generator).to(DEVICE)]
    expected = find_ranges(context, known, bounds, index.tokens, index._order)
    found = triton_find_ranges(context, known, bounds, index.tokens, index._order)
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


@settings(max_examples=15)
@given(texts=_TEXTS, n_groups=st.sampled_from([1, 3]), longest=st.sampled_from([1, 2, 5, 16]), seed=st.integers(0, 99))
def test_a_kernel_finds_the_same_ranges(
    texts: list[tuple[list[int], int]], n_groups: int, longest: int, seed: int
) -> None:
    pool = TokenPool(500, n_groups=n_groups)
    for text, group in texts:
        pool.add(text, group % n_groups)
    index = SuffixIndex(len(pool.texts.tokens) + seed, n_groups, longest + 8, DEVICE)
    index.load(pool.texts)
    assert_kernel_finds_the_same_ranges(index, n_groups, longest, seed)


def test_a_kernel_finds_the_same_ranges_of_a_large_pool() -> None:
    texts = torch.randint(3, (100, 40), generator=torch.Generator().manual_seed(0)).tolist()
    index = SuffixIndex(4_100, 3, 16, DEVICE)
    index.load(PoolTexts.of(texts, [number % 3 for number in range(100)]))
    for seed in range(3):
        assert_kernel_finds_the_same_ranges(index, 3, 8, seed)


def test_wide_ranges_give_places_evenly_spaced() -> None:
    pool = TokenPool(10_000)
    for first in range(100):
        pool.add([7, 10 + first, 0])
    index = SuffixIndex(10_000, 1, 4, _DEVICE)
    index.load(pool.texts)
    found = index.find(torch.tensor([[3, 7]]), torch.tensor([2]), torch.tensor([0]), 10)
    assert index.tokens[found.places[0]].tolist() == list(range(10, 110, 10)), "in the order of what follows"
    assert found.counts[0].tolist() == [10.0] * 10
    assert found.lengths[0].tolist() == [1] * 10


def test_other_texts_take_the_place_of_those_before() -> None:
    index = SuffixIndex(50, 1, 4, _DEVICE)
    storage = index.tokens.data_ptr()
    for token in (3, 4):
        index.load(PoolTexts.of([[token, 5]], [0]))
        for asked in (3, 4):
            found = index.find(torch.tensor([[asked]]), torch.tensor([1]), torch.tensor([0]), 2)
            assert (found.lengths[0] > 0).tolist() == [asked == token, False]
    assert index.tokens.data_ptr() == storage
    index.load(PoolTexts.of([], []))
    assert not index.find(torch.tensor([[4]]), torch.tensor([1]), torch.tensor([0]), 2).lengths.any()
