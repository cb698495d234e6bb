from itertools import accumulate

import torch
from hypothesis import given
from hypothesis import strategies as st

from padrec.catalog import Catalog, CatalogTrie, SemanticIDVocabulary

Prefix = tuple[int, ...]


@st.composite
def catalogs_with_vocabulary(draw: st.DrawFn) -> tuple[Catalog, SemanticIDVocabulary]:
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    item = st.tuples(*(st.integers(0, size - 1) for size in sizes))
    items = draw(st.lists(item, min_size=1, max_size=25))
    vocabulary = SemanticIDVocabulary(sizes, separator=draw(st.booleans()), shared_codes=draw(st.booleans()))
    return Catalog(torch.tensor(items), [str(index) for index in range(len(items))]), vocabulary


def prefixes(catalog: Catalog, vocabulary: SemanticIDVocabulary) -> dict[Prefix, dict[int, Prefix]]:
    """Children of every prefix of tokens: the trie as a dict of dicts."""
    children: dict[Prefix, dict[int, Prefix]] = {(): {}}
    for tokens in vocabulary.encode(catalog.codes)[:, : vocabulary.n_slots].tolist():
        for length in range(1, len(tokens) + 1):
            prefix = tuple(tokens[:length])
            children.setdefault(prefix, {})
            children[prefix[:-1]][prefix[-1]] = prefix
    return children


def nodes_of(trie: CatalogTrie, reference: dict[Prefix, dict[int, Prefix]]) -> dict[Prefix, int]:
    """The trie's node of every prefix, found with `child` from the root."""
    nodes: dict[Prefix, int] = {(): 0}
    for prefix in sorted(reference, key=len):
        if prefix:
            nodes[prefix] = int(trie.child(torch.tensor(nodes[prefix[:-1]]), torch.tensor(prefix[-1])))
    return nodes


@given(sample=catalogs_with_vocabulary())
def test_every_prefix_is_one_node(sample: tuple[Catalog, SemanticIDVocabulary]) -> None:
    catalog, vocabulary = sample
    trie, reference = CatalogTrie(catalog, vocabulary), prefixes(catalog, vocabulary)
    nodes = nodes_of(trie, reference)
    assert trie.n_nodes == len(reference)
    assert sorted(nodes.values()) == list(range(trie.n_nodes))
    assert trie.max_children == max(map(len, reference.values()))


@given(sample=catalogs_with_vocabulary())
def test_a_step_outside_the_catalog_ends_in_the_sink(sample: tuple[Catalog, SemanticIDVocabulary]) -> None:
    catalog, vocabulary = sample
    trie, reference = CatalogTrie(catalog, vocabulary), prefixes(catalog, vocabulary)
    nodes = nodes_of(trie, reference)
    tokens = torch.arange(vocabulary.size)
    for prefix, node in nodes.items():
        expected = [nodes[(*prefix, token)] if token in reference[prefix] else trie.sink for token in tokens.tolist()]
        assert trie.child(torch.full_like(tokens, node), tokens).tolist() == expected
    assert trie.child(torch.full_like(tokens, trie.sink), tokens).tolist() == [trie.sink] * vocabulary.size


@given(sample=catalogs_with_vocabulary())
def test_children_are_those_of_the_dict_of_prefixes(sample: tuple[Catalog, SemanticIDVocabulary]) -> None:
    catalog, vocabulary = sample
    trie, reference = CatalogTrie(catalog, vocabulary), prefixes(catalog, vocabulary)
    nodes = nodes_of(trie, reference)
    tokens, below, present = trie.children(torch.tensor([*nodes.values(), trie.sink])[None])
    assert tokens.shape == below.shape == present.shape == (1, len(nodes) + 1, trie.max_children)
    for row, prefix in enumerate(nodes):
        here = present[0, row]
        expected = sorted(reference[prefix])
        assert tokens[0, row][here].tolist() == expected
        assert below[0, row][here].tolist() == [nodes[(*prefix, token)] for token in expected]
    assert not present[0, -1].any()


@given(sample=catalogs_with_vocabulary())
def test_every_node_is_a_contiguous_range_of_leaves(sample: tuple[Catalog, SemanticIDVocabulary]) -> None:
    catalog, vocabulary = sample
    trie, reference = CatalogTrie(catalog, vocabulary), prefixes(catalog, vocabulary)
    leaves = vocabulary.encode(catalog.leaf_codes)[:, : vocabulary.n_slots].tolist()
    for prefix, node in nodes_of(trie, reference).items():
        below = [leaf for leaf, tokens in enumerate(leaves) if tuple(tokens[: len(prefix)]) == prefix]
        assert list(range(int(trie.low[node]), int(trie.high[node]))) == below
        at = torch.tensor(node)
        is_leaf = len(prefix) == vocabulary.n_slots
        assert bool(trie.is_leaf(at)) == is_leaf
        if is_leaf:
            assert leaves[int(trie.leaf(at))] == list(prefix)
    assert trie.low[trie.sink] == trie.high[trie.sink]
    assert not trie.is_leaf(torch.tensor(trie.sink))


@given(sample=catalogs_with_vocabulary())
def test_edges_are_sorted_within_every_node(sample: tuple[Catalog, SemanticIDVocabulary]) -> None:
    trie = CatalogTrie(*sample)
    assert trie.first_child.shape == (trie.n_nodes + 2,)
    assert trie.first_child[0] == 0
    assert trie.first_child[-1] == len(trie.child_token) == trie.n_nodes - 1
    for start, end in zip(trie.first_child[:-1].tolist(), trie.first_child[1:].tolist(), strict=True):
        tokens = trie.child_token[start:end].tolist()
        assert tokens == sorted(set(tokens))


@given(sample=catalogs_with_vocabulary())
def test_the_only_token_is_that_of_a_single_child_or_the_separator(
    sample: tuple[Catalog, SemanticIDVocabulary],
) -> None:
    catalog, vocabulary = sample
    trie, reference = CatalogTrie(catalog, vocabulary), prefixes(catalog, vocabulary)
    for prefix, node in nodes_of(trie, reference).items():
        following = sorted(reference[prefix])
        if len(prefix) == vocabulary.n_slots and vocabulary.separator:
            following = [vocabulary.separator_token]
        assert int(trie.only_token[node]) == (following[0] if len(following) == 1 else -1)
    assert int(trie.only_token[trie.sink]) == -1


@given(sample=catalogs_with_vocabulary())
def test_levels_and_the_tokens_that_lead_to_their_nodes(sample: tuple[Catalog, SemanticIDVocabulary]) -> None:
    catalog, vocabulary = sample
    trie, reference = CatalogTrie(catalog, vocabulary), prefixes(catalog, vocabulary)
    nodes = nodes_of(trie, reference)
    sizes = [sum(len(prefix) == level for prefix in reference) for level in range(vocabulary.n_slots + 1)]
    assert trie.level_starts == (*accumulate(sizes, initial=0),)
    for prefix, node in nodes.items():
        assert trie.level_starts[len(prefix)] <= node < trie.level_starts[len(prefix) + 1]
        assert int(trie.n_children(torch.tensor(node))) == len(reference[prefix])
        if prefix:
            assert int(trie.token(torch.tensor(node))) == prefix[-1]


@given(sample=catalogs_with_vocabulary(), data=st.data())
def test_nodes_expand_into_their_children_one_after_another(
    sample: tuple[Catalog, SemanticIDVocabulary], data: st.DataObject
) -> None:
    trie = CatalogTrie(*sample)
    some = st.lists(st.integers(0, trie.sink), min_size=3, max_size=3)
    nodes = torch.tensor(data.draw(st.lists(some, min_size=1, max_size=3)))
    _, below, present = trie.children(nodes)
    expected = [
        [(parent, int(node)) for parent in range(3) for node in below[row, parent][present[row, parent]]]
        for row in range(len(nodes))
    ]
    bound = max(map(len, expected)) + data.draw(st.integers(0, 2))
    children, parents, firsts = trie.expand(nodes, bound)
    assert children.shape == parents.shape == (len(nodes), bound)
    for row, pairs in enumerate(expected):
        found = list(zip(parents[row].tolist(), children[row].tolist(), strict=True))
        assert found[: len(pairs)] == pairs
        assert {node for _, node in found[len(pairs) :]} <= {trie.sink}
        for parent in {parent for parent, _ in pairs}:
            assert int(firsts[row, parent]) == [number for number, _ in pairs].index(parent)


@given(sample=catalogs_with_vocabulary())
def test_descendants_are_counted_level_by_level(sample: tuple[Catalog, SemanticIDVocabulary]) -> None:
    catalog, vocabulary = sample
    trie, reference = CatalogTrie(catalog, vocabulary), prefixes(catalog, vocabulary)
    nodes = nodes_of(trie, reference)
    for level in range(vocabulary.n_slots + 1):
        above = sorted((prefix for prefix in reference if len(prefix) == level), key=nodes.__getitem__)
        for below in range(level, vocabulary.n_slots + 1):
            lower = [prefix[:level] for prefix in reference if len(prefix) == below]
            assert trie.descendants(level, below).tolist() == [lower.count(prefix) for prefix in above]


def test_moving_keeps_the_trie() -> None:
    catalog = Catalog(torch.tensor([[0, 1], [1, 1]]), ["a", "b"])
    trie = CatalogTrie(catalog, SemanticIDVocabulary([2, 2]))
    before = trie.first_child.clone()
    assert trie.to("cpu") is trie
    assert torch.equal(trie.first_child, before)


def test_a_million_items_stay_within_bounded_memory() -> None:
    n_items, sizes = 1_000_000, (64, 256, 256, 256)
    generator = torch.Generator().manual_seed(0)
    codes = torch.stack([torch.randint(size, (n_items,), generator=generator) for size in sizes], 1)
    catalog = Catalog(codes, [str(item) for item in range(n_items)])
    trie = CatalogTrie(catalog, SemanticIDVocabulary(sizes))
    # At most one node for each item and slot, at most six int64 numbers for each node and its edge.
    n_bytes = sum(value.nbytes for value in vars(trie).values() if isinstance(value, torch.Tensor))
    assert n_bytes <= 8 * 6 * (n_items * len(sizes) + 3)
    samples = torch.randint(n_items, (1000,), generator=generator)
    tokens = SemanticIDVocabulary(sizes).encode(codes[samples])
    node = torch.zeros(1000, dtype=torch.int64)
    for slot in range(len(sizes)):
        node = trie.child(node, tokens[:, slot])
    assert trie.is_leaf(node).all()
    assert torch.equal(trie.leaf(node), catalog.leaf_of_item[samples])
    assert torch.equal(catalog.leaf_of_codes(codes[samples]), catalog.leaf_of_item[samples])
