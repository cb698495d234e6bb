import logging
import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from padrec.catalog import InputError
from padrec.data import ItemSequences, Split
from padrec.quantization import BehaviourEmbeddings
from padrec.quantization.behaviour_embeddings import cooccurrences, shifted_ppmi
from tests.data.toy_data import CODES, ToyReader

rows_of_items = st.lists(st.lists(st.integers(0, 5), max_size=8), min_size=1, max_size=8)


def reference_counts(rows: list[list[int]], window: int) -> Counter[tuple[int, int]]:
    counts: Counter[tuple[int, int]] = Counter()
    for row in rows:
        for place, item in enumerate(row):
            for other in row[place + 1 : place + 1 + window]:
                if item != other:
                    counts[item, other] += 1
                    counts[other, item] += 1
    return counts


@given(rows=rows_of_items, window=st.integers(1, 4))
def test_cooccurrences_equal_a_count_by_hand(rows: list[list[int]], window: int) -> None:
    found = cooccurrences(ItemSequences.from_lists(rows), 6, window).toarray()
    expected = reference_counts(rows, window)
    assert found.tolist() == [[expected[i, j] for j in range(6)] for i in range(6)]


@given(rows=rows_of_items, shift=st.sampled_from([0.5, 1.0, 3.0]), smoothing=st.sampled_from([0.75, 1.0]))
def test_ppmi_equals_its_definition(rows: list[list[int]], shift: float, smoothing: float) -> None:
    counts = reference_counts(rows, 2)
    total = sum(counts.values())
    frequency = [sum(counts[i, j] for j in range(6)) for i in range(6)]
    context = sum(f**smoothing for f in frequency)
    expected = np.zeros((6, 6))
    for (i, j), count in counts.items():
        pmi = math.log(count / total / (frequency[i] / total * frequency[j] ** smoothing / context))
        expected[i, j] = max(pmi - math.log(shift), 0)
    found = shifted_ppmi(cooccurrences(ItemSequences.from_lists(rows), 6, 2), shift, smoothing)
    np.testing.assert_allclose(found.toarray(), expected, atol=1e-12)


def test_vectors_factorise_the_matrix() -> None:
    reader = ToyReader()
    found = BehaviourEmbeddings(reader, dimension=5, window=2).embed()
    train = ItemSequences.from_lists([row[:-2] for row in reader.rows])
    matrix = shifted_ppmi(cooccurrences(train, len(CODES), 2)).toarray()
    left, singular, _ = np.linalg.svd(matrix)
    expected = left[:, :5] * np.sqrt(singular[:5])
    gram = found.vectors.numpy() @ found.vectors.numpy().T  # free of signs and of rotations among equal values
    if singular[4] - singular[5] > 1e-6:
        np.testing.assert_allclose(gram, expected @ expected.T, atol=1e-5)
    assert found.keys == reader.read().catalog.keys
    assert torch.equal(BehaviourEmbeddings(ToyReader(), dimension=5, window=2).embed().vectors, found.vectors)


def test_validation_and_test_items_stay_unseen() -> None:
    rows = torch.randint(0, len(CODES), (30, 9), generator=torch.Generator().manual_seed(0)).tolist()
    seen = BehaviourEmbeddings(ToyReader(rows), dimension=2).embed().vectors
    changed = [[*row[:-2], 0, 1] for row in rows]
    assert torch.equal(seen, BehaviourEmbeddings(ToyReader(changed), dimension=2).embed().vectors)


def test_of_a_given_split_only_the_training_part_is_read() -> None:
    train, validation, test = (ItemSequences.from_lists([row] * 3) for row in ([0, 1, 2, 3], [4, 5], [6, 7]))
    split = Split(("a", "b", "c"), train, validation, test)
    vectors = BehaviourEmbeddings(ToyReader(split=split), dimension=2).embed().vectors
    assert (vectors != 0).any(1).tolist() == [True] * 4 + [False] * 4


def test_items_without_training_interactions_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        vectors = BehaviourEmbeddings(ToyReader([[0, 1, 2, 3, 6, 7]] * 3), dimension=2).embed().vectors
    assert (vectors == 0).all(1).tolist() == [False] * 4 + [True] * 4
    assert "4 of 8 items get vectors of zeros" in caplog.text


def test_too_many_dimensions_are_refused() -> None:
    with pytest.raises(InputError, match=r"8 dimensions from 8 items .* expected more items than dimensions"):
        BehaviourEmbeddings(ToyReader(), dimension=8).embed()
