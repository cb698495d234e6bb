from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from padrec.catalog import Catalog, CatalogTrie, InputError, SemanticIDVocabulary
from padrec.decoding import CatalogConstraint, FreeDecoding, ListState, concatenate
from tests import reference

_CPU = torch.device("cpu")
Sample = tuple[Catalog, SemanticIDVocabulary, int]


@st.composite
def samples(draw: st.DrawFn, max_leaves: int = 5) -> Sample:
    """A catalog with items on one leaf and subtrees that are soon exhausted, and a list length up to its leaves."""
    sizes = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    item = st.tuples(*(st.integers(0, size - 1) for size in sizes))
    leaves = draw(st.lists(item, min_size=1, max_size=max_leaves, unique=True))
    items = leaves + draw(st.lists(st.sampled_from(leaves), max_size=2))
    vocabulary = SemanticIDVocabulary(sizes, separator=draw(st.booleans()), shared_codes=draw(st.booleans()))
    catalog = Catalog(torch.tensor(items), [str(index) for index in range(len(items))])
    return catalog, vocabulary, draw(st.integers(1, len(leaves)))


def constraint_of(sample: Sample) -> CatalogConstraint:
    catalog, vocabulary, list_length = sample
    return CatalogConstraint(CatalogTrie(catalog, vocabulary), vocabulary, list_length)


def all_lists(sample: Sample) -> set[tuple[int, ...]]:
    """The tokens of every list of distinct items."""
    catalog, vocabulary, list_length = sample
    between = (vocabulary.separator_token,) if vocabulary.separator else ()
    lists = set()
    for items in permutations(reference.leaf_tokens(catalog, vocabulary), list_length):
        tokens = [token for item in items for token in item + between]
        lists.add(tuple(tokens[: vocabulary.list_tokens(list_length)]))
    return lists


@given(sample=samples(), data=st.data())
def test_exactly_the_beginnings_of_lists_of_distinct_items_are_allowed(sample: Sample, data: st.DataObject) -> None:
    _, vocabulary, list_length = sample
    constraint, lists = constraint_of(sample), all_lists(sample)
    state = constraint.initial(1, _CPU)
    written: tuple[int, ...] = ()
    for _ in range(vocabulary.list_tokens(list_length)):
        following = {tokens[len(written)] for tokens in lists if tokens[: len(written)] == written}
        assert set(constraint.allowed(state)[0].nonzero().flatten().tolist()) == following
        token = data.draw(st.sampled_from(sorted(following)))
        state = constraint.advance(state, torch.tensor([token]))
        written += (token,)
    assert written in lists
    assert not constraint.allowed(state).any(), "nothing follows a whole list"
    assert int(state.count) == list_length


@given(sample=samples(max_leaves=6), data=st.data())
def test_a_forced_token_is_the_only_allowed_one_and_those_of_the_trie_are_found(
    sample: Sample, data: st.DataObject
) -> None:
    catalog, vocabulary, list_length = sample
    constraint, leaves = constraint_of(sample), reference.leaf_tokens(catalog, vocabulary)
    state = constraint.initial(1, _CPU)
    written: list[int] = []
    for _ in range(vocabulary.list_tokens(list_length)):
        allowed = reference.allowed_tokens(leaves, vocabulary, written, list_length)
        forced = int(constraint.forced(state))
        assert forced == -1 or allowed == {forced}
        assert (forced >= 0) == (len(reference.trie_tokens(leaves, vocabulary, written)) == 1)
        written.append(data.draw(st.sampled_from(sorted(allowed))))
        state = constraint.advance(state, torch.tensor(written[-1:]))
    assert int(constraint.forced(state)) == -1, "nothing follows a whole list"


@given(sample=samples(max_leaves=9))
def test_the_longest_run_is_what_some_item_ends_with(sample: Sample) -> None:
    # Among fewer than a hundred leaves each one counts.
    catalog, vocabulary, _ = sample
    leaves = reference.leaf_tokens(catalog, vocabulary)
    longest = 0
    for tokens in leaves:
        prefixes = [tokens[:length] for length in range(1, len(tokens))]
        alone = [sum(other[: len(prefix)] == prefix for other in leaves) == 1 for prefix in prefixes]
        longest = max(longest, sum(alone))  # whatever begins like no other leaf does so from there on
    assert constraint_of(sample).longest_run == longest + vocabulary.separator


def test_runs_that_hardly_any_item_needs_get_no_room() -> None:
    vocabulary = SemanticIDVocabulary([4, 200, 2])
    dense = [[0, second, third] for second in range(200) for third in range(2)]
    one_alone = Catalog(torch.tensor([*dense, [1, 0, 0]]), [str(item) for item in range(401)])
    assert constraint_of((one_alone, vocabulary, 2)).longest_run == 1
    some_alone = Catalog(
        torch.tensor([*dense[:200], [1, 0, 0], [2, 0, 0], [3, 0, 0]]), [str(item) for item in range(203)]
    )
    assert constraint_of((some_alone, vocabulary, 2)).longest_run == 3


def test_nothing_is_forced_after_a_wrong_token_and_in_free_lists() -> None:
    vocabulary = SemanticIDVocabulary([2, 2])
    constraint = constraint_of((Catalog(torch.tensor([[0, 0], [1, 1]]), ["a", "b"]), vocabulary, 2))
    state = constraint.advance(constraint.initial(3, _CPU), torch.tensor([vocabulary.eos_token, 6, 7]))
    assert constraint.forced(state).tolist() == [-1, -1, -1]
    free = FreeDecoding(vocabulary)
    assert free.forced(free.initial(2, _CPU)).tolist() == [-1, -1]
    assert free.longest_run == 0


@given(sample=samples(max_leaves=9), seed=st.integers(0, 999))
def test_a_list_of_the_whole_catalog_never_runs_into_a_dead_end(sample: Sample, seed: int) -> None:
    catalog, vocabulary, _ = sample
    sample = (catalog, vocabulary, catalog.n_leaves)
    constraint, batch = constraint_of(sample), 4
    generator = torch.Generator().manual_seed(seed)
    state = constraint.initial(batch, _CPU)
    written = []
    for _ in range(vocabulary.list_tokens(catalog.n_leaves)):
        token = torch.multinomial(constraint.allowed(state).double(), 1, generator=generator)[:, 0]
        state = constraint.advance(state, token)
        written.append(token)
    codes = vocabulary.parse_lists(torch.stack(written, 1), catalog.n_leaves)
    leaves = catalog.leaf_of_codes(codes).sort(1).values
    assert leaves.tolist() == [list(range(catalog.n_leaves))] * batch


@given(sample=samples(), data=st.data())
def test_slots_are_tracked_with_and_without_the_catalog(sample: Sample, data: st.DataObject) -> None:
    _, vocabulary, _ = sample
    tokens = data.draw(st.lists(st.integers(0, vocabulary.size - 1), max_size=8))
    constrained, free = constraint_of(sample), FreeDecoding(vocabulary)
    state: ListState = constrained.initial(1, _CPU)
    free_state, slot = free.initial(1, _CPU), vocabulary.other_slot
    assert free.allowed(free_state) is None
    for token in tokens:
        slot = reference.next_slot(vocabulary, slot, token)
        state = constrained.advance(state, torch.tensor([token]))  # type: ignore[arg-type]
        free_state = free.advance(free_state, torch.tensor([token]))
        assert (int(state.slot), int(free_state.slot)) == (slot, slot)


@settings(max_examples=50)
@given(sample=samples(), seed=st.integers(0, 999))
def test_states_of_tree_nodes_are_independent_of_each_other(sample: Sample, seed: int) -> None:
    """States in the shape `[B, N]`, picked and joined, behave as each of them alone; wrong tokens included."""
    _, vocabulary, _ = sample
    constraint = constraint_of(sample)
    generator = torch.Generator().manual_seed(seed)
    batch, n_nodes = 2, 3
    alone = [[constraint.initial(1, _CPU).unsqueeze() for _ in range(n_nodes)] for _ in range(batch)]
    together = constraint.initial(batch, _CPU).unsqueeze().gather(torch.zeros(batch, n_nodes, dtype=torch.int64))
    for _ in range(5):
        picks = torch.randint(n_nodes, (batch, n_nodes), generator=generator)
        mask = constraint.allowed(together.gather(picks))
        assert mask.shape == (batch, n_nodes, vocabulary.size)
        choice = torch.multinomial(mask.double().flatten(0, 1) + 0.02, 1, generator=generator).view(batch, n_nodes)
        together = constraint.advance(together.gather(picks), choice)
        joined = []
        for row in range(batch):
            for node in range(n_nodes):
                before = alone[row][int(picks[row, node])]
                assert torch.equal(constraint.allowed(before)[0, 0], mask[row, node])
                joined.append(constraint.advance(before, choice[row : row + 1, node : node + 1]))
            alone[row] = joined[-n_nodes:]
            row_states = concatenate(alone[row])
            for name, values in vars(row_states).items():
                assert torch.equal(values[0], getattr(together, name)[row])


def test_a_token_that_was_not_allowed_leads_nowhere() -> None:
    vocabulary = SemanticIDVocabulary([2, 2])
    catalog = Catalog(torch.tensor([[0, 0], [1, 1]]), ["a", "b"])
    constraint = CatalogConstraint(CatalogTrie(catalog, vocabulary), vocabulary, 2)
    for wrong in (vocabulary.separator_token, vocabulary.eos_token, 6):
        state = constraint.advance(constraint.initial(1, _CPU), torch.tensor([wrong]))
        for _ in range(3):
            assert not constraint.allowed(state).any()
            state = constraint.advance(state, torch.tensor([4]))
        assert int(state.count) == 0


def test_states_change_shape_and_back() -> None:
    state = constraint_of((Catalog(torch.tensor([[0], [1]]), ["a", "b"]), SemanticIDVocabulary([2]), 2)).initial(
        3, _CPU
    )
    again = state.unsqueeze().squeeze()
    assert [getattr(state.unsqueeze(), name).shape[:2] for name in vars(state)] == [(3, 1)] * 4
    assert all(torch.equal(getattr(again, name), value) for name, value in vars(state).items())


@pytest.mark.parametrize("list_length", [0, -1, 3])
def test_a_list_longer_than_the_catalog_is_refused(list_length: int) -> None:
    catalog = Catalog(torch.tensor([[0], [1], [1]]), ["a", "b", "c"])
    with pytest.raises(InputError, match=rf"^lists of {list_length} distinct items: the catalog has 2 distinct"):
        constraint_of((catalog, SemanticIDVocabulary([2]), list_length))
