"""Forced tokens: they cost no pass of their own and no pass of the draft, and change no list."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from padrec.catalog import Catalog, SemanticIDVocabulary
from padrec.decoding import (
    AutoregressiveDecoder,
    CatalogDraft,
    Chain,
    Decoder,
    DecodingTrace,
    DynamicTree,
    ForcedRuns,
    ListRequest,
    Recommendations,
    RootOnly,
    Sampling,
    SpeculativeDecoder,
    StaticTree,
    TokenTree,
    TransformersDecoder,
    TransformersRunner,
    TreeContext,
    TreeExpansion,
)
from padrec.decoding.trees.tree_operations import TreeOperations
from tests import reference
from tests.decoding.trees.test_dynamic_tree import paths_of
from tests.stubs import OracleDraft, PathSteps, RandomDraft, random_catalog, random_prompts, tiny_target

_SIZES, _K = (4, 5, 4, 3), 3
_CPU = torch.device("cpu")
_SHARED_START = Catalog(torch.tensor([[2, 1, a, b] for a in range(3) for b in range(2)]), list("abcdef"))
_CATALOGS = {
    "sparse": random_catalog(_SIZES, 12),
    "dense": random_catalog(_SIZES, 400),
    "one beginning": _SHARED_START,
    "three items": random_catalog(_SIZES, 3, seed=4),
}
_EXPANSIONS: dict[str, TreeExpansion] = {
    "root": RootOnly(),
    "chain": Chain(2),
    "static": StaticTree([[0], [1], [2], [0, 0], [0, 1], [1, 0]]),
    "dynamic": DynamicTree(depth=3, width=3, nodes=10),
}
Path = tuple[int, ...]


def forced_run(leaves: list[Path], vocabulary: SemanticIDVocabulary, written: Path, n_tokens: int, most: int) -> Path:
    """The forced tokens after `written`, one after the other."""
    run: Path = ()
    while len(run) < most and len(written + run) < n_tokens:
        following = reference.trie_tokens(leaves, vocabulary, written + run)
        if len(following) != 1:
            break
        run += tuple(following)
    return run


@settings(max_examples=60)
@given(
    name=st.sampled_from(list(_CATALOGS)),
    grown=st.sampled_from(list(_EXPANSIONS)),
    separator=st.booleans(),
    n_leaves=st.integers(1, 5),
    length=st.integers(1, 4),
    n_written=st.integers(0, 6),
    seed=st.integers(0, 999),
)
def test_the_best_leaves_with_a_forced_token_are_continued_by_their_run(
    name: str, grown: str, separator: bool, n_leaves: int, length: int, n_written: int, seed: int
) -> None:
    vocabulary, catalog = SemanticIDVocabulary(_SIZES, separator=separator), _CATALOGS[name]
    request = ListRequest.build(catalog, vocabulary, _K)
    constraint, leaves, batch = request.constraint, reference.leaf_tokens(catalog, vocabulary), 2
    generator = torch.Generator().manual_seed(seed)
    state, written = constraint.initial(batch, _CPU), torch.empty(batch, 0, dtype=torch.int64)
    for _ in range(n_written):
        allowed = constraint.allowed(state)
        assert allowed is not None
        token = torch.multinomial(allowed.double(), 1, generator=generator)
        state, written = constraint.advance(state, token[:, 0]), torch.cat([written, token], 1)
    expansion, steps = _EXPANSIONS[grown], PathSteps(batch, vocabulary.size, seed)
    choice = Sampling().choice(torch.zeros(batch), torch.zeros(batch), 0, vocabulary.size)
    before = expansion.expand(
        TreeContext(torch.full((batch,), vocabulary.bos_token), state, constraint, choice, steps, TreeOperations())
    )
    tree = ForcedRuns(n_leaves, length).extend(before, constraint, TreeOperations())
    n_nodes = before.tokens.shape[1]
    assert tree.tokens.shape[1] == n_nodes + min(n_leaves, n_nodes) * length
    assert tree.max_depth == expansion.depth + length
    assert ((tree.tokens >= 0) & (tree.tokens < vocabulary.size)).all(), "the target reads absent nodes as well"
    for row in range(batch):
        assert_runs(tree, row, n_nodes, n_leaves, length, request, leaves, tuple(written[row].tolist()))


def assert_runs(
    tree: TokenTree,
    row: int,
    n_nodes: int,
    n_leaves: int,
    length: int,
    request: ListRequest,
    leaves: list[Path],
    written: Path,
) -> None:
    paths, parents = paths_of(tree, row), tree.parents[row].tolist()

    def possible(path: Path) -> bool:
        starts = range(len(written), len(written) + len(path))
        whole = written + path
        return all(
            whole[end] in reference.allowed_tokens(leaves, request.vocabulary, whole[:end], _K) for end in starts
        )

    runs = {
        node: forced_run(leaves, request.vocabulary, written + paths[node], request.n_tokens, length)
        for node in range(n_nodes)
        if tree.present[row, node] and node not in parents[1:n_nodes] and possible(paths[node])
    }
    present = [node for node in range(n_nodes, len(parents)) if tree.present[row, node]]
    present_paths = [path for path, is_present in zip(paths, tree.present[row].tolist(), strict=True) if is_present]
    assert len(set(present_paths)) == len(present_paths), "siblings carry different tokens"
    continued = [node for node in runs if any(parents[new] == node for new in present)]
    for node in continued:
        own = {paths[new] for new in present if paths[new][: len(paths[node])] == paths[node]}
        assert own == {paths[node] + runs[node][:end] for end in range(1, len(runs[node]) + 1)}
    for new in present:
        state = request.constraint.initial(1, _CPU)
        for token in written + paths[new]:
            state = request.constraint.advance(state, torch.tensor([token]))
        for field, value in vars(state).items():
            assert torch.equal(getattr(tree.states, field)[row, new], value[0])
    due = sorted((float(tree.scores[row, node]) for node, run in runs.items() if run), reverse=True)
    taken = sorted((float(tree.scores[row, node]) for node in continued), reverse=True)
    assert taken == due[:n_leaves]


def decode(
    decoder: Decoder, request: ListRequest, sampling_seed: int = 0
) -> tuple[Recommendations, DecodingTrace, list[Path]]:
    runner = TransformersRunner(tiny_target(request.vocabulary))
    prompts = random_prompts(request.catalog, request.vocabulary, [3, 0, 1, 2])
    lists, trace = decoder.bind(runner, request).decode(prompts, torch.Generator().manual_seed(sampling_seed))
    written = [
        tuple(tokens[:length]) for tokens, length in zip(lists.tokens.tolist(), trace.tokens.tolist(), strict=True)
    ]
    return lists, trace, written


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(1.0)], ids=["greedy", "sampled"])
@pytest.mark.parametrize("separator", [True, False], ids=["separator", "dense"])
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "per-slot"])
@pytest.mark.parametrize("name", _CATALOGS)
def test_forced_tokens_take_no_target_pass_and_change_no_list(
    sampling: Sampling, separator: bool, shared: bool, name: str
) -> None:
    vocabulary = SemanticIDVocabulary(_SIZES, separator=separator, shared_codes=shared)
    catalog = _CATALOGS[name]
    request = ListRequest.build(catalog, vocabulary, _K, sampling=sampling)
    expected, _, written = decode(AutoregressiveDecoder(), request)
    decoder = AutoregressiveDecoder(forced_tokens=True)
    found, trace, _ = decode(decoder, request)
    assert torch.equal(found.tokens, expected.tokens)
    torch.testing.assert_close(found.log_probs, expected.log_probs, rtol=0, atol=1e-6)
    leaves = reference.leaf_tokens(catalog, vocabulary)
    accepted = 0
    for row, tokens in enumerate(written):
        position, passes = 1, 0
        while position < len(tokens):
            run = forced_run(leaves, vocabulary, tokens[:position], len(tokens), request.constraint.longest_run)
            assert found.log_probs[row, position : position + len(run)].tolist() == [0.0] * len(run)
            position += len(run) + 1
            passes, accepted = passes + 1, accepted + len(run)
        assert int(trace.target_passes[row]) == passes
    assert trace.draft_passes.tolist() == [0] * 4
    assert int(trace.accepted.sum()) == int(trace.attempted.sum()) == accepted
    assert trace.accepted.shape[1] == decoder.max_depth(request)


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(1.0)], ids=["greedy", "sampled"])
@pytest.mark.parametrize("separator", [True, False], ids=["separator", "dense"])
@pytest.mark.parametrize("name", _CATALOGS)
@pytest.mark.parametrize("grown", _EXPANSIONS)
def test_trees_with_forced_runs_keep_the_lists(sampling: Sampling, separator: bool, name: str, grown: str) -> None:
    vocabulary = SemanticIDVocabulary(_SIZES, separator=separator)
    request = ListRequest.build(_CATALOGS[name], vocabulary, _K, sampling=sampling)
    expected, _, _ = decode(AutoregressiveDecoder(), request)
    for draft in (RandomDraft(vocabulary), OracleDraft(expected.tokens, vocabulary), CatalogDraft()):
        found, _, _ = decode(SpeculativeDecoder(draft, _EXPANSIONS[grown]), request)
        assert torch.equal(found.tokens, expected.tokens)
        torch.testing.assert_close(found.log_probs, expected.log_probs, rtol=0, atol=1e-6)


def test_forced_runs_make_a_round_longer_than_its_draft() -> None:
    vocabulary = SemanticIDVocabulary(_SIZES)
    request = ListRequest.build(_CATALOGS["three items"], vocabulary, _K)
    expected, _, _ = decode(AutoregressiveDecoder(), request)
    passes = []
    for forced in (True, False):
        draft = OracleDraft(expected.tokens, vocabulary)
        _, trace, _ = decode(SpeculativeDecoder(draft, Chain(1), forced_tokens=forced), request)
        passes.append(int(trace.target_passes.sum()))
        assert torch.equal(trace.attempted, trace.accepted)
    assert passes[0] < passes[1]


def test_nothing_is_forced_without_a_constraint() -> None:
    vocabulary = SemanticIDVocabulary(_SIZES)
    request = ListRequest.build(_CATALOGS["sparse"], vocabulary, _K, constrained=False)
    expected, reference_trace, _ = decode(AutoregressiveDecoder(), request)
    found, trace, _ = decode(AutoregressiveDecoder(forced_tokens=True), request)
    assert torch.equal(found.tokens, expected.tokens)
    assert torch.equal(trace.target_passes, reference_trace.target_passes)
    traces = []
    for forced in (True, False):
        found, trace, _ = decode(SpeculativeDecoder(RandomDraft(vocabulary), Chain(3), forced_tokens=forced), request)
        assert torch.equal(found.tokens, expected.tokens)
        traces.append((trace.attempted.tolist(), trace.accepted.tolist(), trace.target_passes.tolist()))
    assert traces[0] == traces[1]


@pytest.mark.parametrize(
    ("n_slots", "separator", "constrained", "run"),
    [(4, True, True, 3), (4, False, True, 2), (1, False, True, 0), (7, True, True, 6), (4, True, False, 0)],
)
def test_how_deep_a_round_may_go_is_known_in_advance(
    n_slots: int, separator: bool, constrained: bool, run: int
) -> None:
    vocabulary = SemanticIDVocabulary([3] * n_slots, separator=separator)
    catalog = random_catalog([3] * n_slots, 9)
    request = ListRequest.build(catalog, vocabulary, min(_K, catalog.n_leaves), constrained=constrained)
    depths: dict[Decoder, int] = {
        AutoregressiveDecoder(): 0,
        TransformersDecoder(): 0,
        AutoregressiveDecoder(forced_tokens=True): run,
        SpeculativeDecoder(CatalogDraft(), Chain(3)): 3 + run,
        SpeculativeDecoder(CatalogDraft(), Chain(3), forced_tokens=False): 3,
    }
    for decoder, depth in depths.items():
        assert decoder.max_depth(request) == depth
        _, trace, _ = decode(decoder, request)
        assert trace.attempted.shape == trace.accepted.shape == (vocabulary.n_slot_states, depth)
        assert trace.accepted_lengths.shape == (depth + 1,)


def test_runs_of_long_items_are_taken_in_one_pass() -> None:
    """As many forced tokens as an item has room for: nothing is cut off at the usual four slots."""
    vocabulary = SemanticIDVocabulary([3] * 8)
    catalog = Catalog(torch.tensor([[code] * 8 for code in range(3)]), list("abc"))
    request = ListRequest.build(catalog, vocabulary, _K)
    expected, _, _ = decode(AutoregressiveDecoder(), request)
    found, trace, _ = decode(AutoregressiveDecoder(forced_tokens=True), request)
    assert torch.equal(found.tokens, expected.tokens)
    assert trace.target_passes.tolist() == [_K] * 4, "one for each item"
