from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from padrec.catalog import Catalog, CatalogTrie, SemanticIDVocabulary
from padrec.decoding import (
    CatalogConstraint,
    Chain,
    Choice,
    Constraint,
    DynamicTree,
    FreeDecoding,
    ListState,
    Sampling,
    TokenTree,
    TreeContext,
)
from padrec.decoding.trees.tree_operations import TreeOperations
from tests.stubs import PathSteps, random_catalog

_SIZES = (3, 6, 3)
_CPU = torch.device("cpu")
Path = tuple[int, ...]


def catalog_constraint(catalog: Catalog, vocabulary: SemanticIDVocabulary, list_length: int) -> Constraint[ListState]:
    trie = CatalogTrie(catalog, vocabulary)
    return CatalogConstraint(trie, vocabulary, list_length)  # type: ignore[return-value]


def constraint_of(name: str, vocabulary: SemanticIDVocabulary) -> Constraint[ListState]:
    if name == "free":
        return FreeDecoding(vocabulary)
    # A sparse catalog: many tokens are forced, and many nodes have fewer children than the tree is wide.
    return catalog_constraint(random_catalog(_SIZES, 12), vocabulary, 3)


@dataclass
class SameSteps:
    """A draft with the same logits after every node."""

    logits: torch.Tensor

    def root_logits(self) -> torch.Tensor:
        return self.logits[None]

    def extend(self, tokens: torch.Tensor, parents: torch.Tensor, slots: torch.Tensor, depth: int) -> torch.Tensor:
        return self.logits.expand(*tokens.shape, -1)


@dataclass
class Candidate:
    path: Path
    score: np.float32
    state: ListState


def choice_of(temperature: float, batch: int, depth: int, vocabulary: SemanticIDVocabulary) -> Choice:
    return Sampling(temperature).choice(
        torch.arange(batch), torch.zeros(batch, dtype=torch.int64), depth, vocabulary.size
    )


def row_of(choice: Choice, row: int) -> Choice:
    return replace(choice, noise=None if choice.noise is None else choice.noise[row : row + 1])


def reference_tree(
    expansion: DynamicTree,
    steps: PathSteps,
    row: int,
    constraint: Constraint[ListState],
    choice: Choice,
    state: ListState,
) -> dict[Path, np.float32]:
    """EAGLE-2 with lists: the score of every path that is kept, the root's empty one included. Only possible paths
    are kept, so that there may be fewer than the tree has nodes. Of equal scores the older one wins."""
    choice = row_of(choice, row)
    frontier = [Candidate((), np.float32(0), state)]
    created = list(frontier)
    for depth in range(expansion.depth):
        level = []
        for node in frontier:
            logits = steps.path_logits(row, node.path)[None, None]
            allowed = constraint.allowed(node.state)
            log_probs = choice.log_chances(logits, allowed, depth, expansion.greedy_temperature)[0, 0].float().numpy()
            best = sorted(range(len(log_probs)), key=lambda token: -log_probs[token])[: expansion.width]
            level += [
                Candidate((*node.path, token), node.score + log_probs[token], node.state)
                for token in best
                if log_probs[token] > -np.inf
            ]
        for child in level:
            child.state = constraint.advance(child.state, torch.tensor([child.path[-1]]))
        created += level
        frontier = sorted(level, key=lambda node: -node.score)[: expansion.width]
    kept = sorted(created, key=lambda node: -node.score)[: expansion.nodes]
    return {node.path: node.score for node in kept}


def paths_of(tree: TokenTree, row: int) -> list[Path]:
    parents, tokens = tree.parents[row].tolist(), tree.tokens[row].tolist()
    paths: list[Path] = [()]
    for node in range(1, len(parents)):
        assert parents[node] < node, "a parent stands before its children"
        paths.append((*paths[parents[node]], tokens[node]))
    return paths


def walk(constraint: Constraint[ListState], state: ListState, path: Path) -> ListState:
    for token in path:
        state = constraint.advance(state, torch.tensor([token]))
    return state


@settings(max_examples=40)
@given(
    depth=st.integers(1, 5),
    width=st.integers(1, 5),
    nodes=st.integers(2, 40),
    name=st.sampled_from(["free", "catalog"]),
    separator=st.booleans(),
    shared=st.booleans(),
    temperature=st.sampled_from([0.0, 1.0]),
    greedy_temperature=st.sampled_from([0.5, 1.0]),
    seed=st.integers(0, 10_000),
)
def test_the_kept_nodes_are_those_of_the_reference(
    depth: int,
    width: int,
    nodes: int,
    name: str,
    separator: bool,
    shared: bool,
    temperature: float,
    greedy_temperature: float,
    seed: int,
) -> None:
    vocabulary = SemanticIDVocabulary(_SIZES, separator=separator, shared_codes=shared)
    constraint, batch = constraint_of(name, vocabulary), 2
    expansion = DynamicTree(depth, width, nodes, greedy_temperature)
    steps, choice = PathSteps(batch, vocabulary.size, seed), choice_of(temperature, batch, depth, vocabulary)
    tree = expansion.expand(
        TreeContext(torch.tensor([1, 1]), constraint.initial(batch, _CPU), constraint, choice, steps, TreeOperations())
    )
    assert tree.tokens.shape == (batch, expansion.nodes)
    assert tree.max_depth == depth
    assert int(tree.depths.max()) <= depth
    assert int(tree.is_childless.sum(1).max()) <= expansion.leaves
    for row in range(batch):
        present = tree.present[row].tolist()
        # The rest of the nodes are proposals that the constraint forbids.
        paths = {path: node for node, path in enumerate(paths_of(tree, row)) if present[node]}
        assert len(paths) == sum(present), "siblings carry different tokens"
        expected = reference_tree(expansion, steps, row, constraint, choice, constraint.initial(1, _CPU))
        assert paths.keys() == expected.keys()
        for path, node in paths.items():
            assert float(tree.scores[row, node]) == pytest.approx(float(expected[path]), abs=1e-5)
            state = walk(constraint, constraint.initial(1, _CPU), path)
            for field, value in vars(state).items():
                assert torch.equal(getattr(tree.states, field)[row, node], value[0])
    assert sum(n_nodes for _, n_nodes, _ in steps.calls) <= expansion.draft_rows
    assert len(steps.calls) == expansion.draft_passes - 1 == depth - 1


@given(seed=st.integers(0, 10_000), levels=st.integers(1, 3), nodes=st.integers(2, 30), width=st.integers(1, 6))
def test_equal_scores_keep_parents_with_their_children(seed: int, levels: int, nodes: int, width: int) -> None:
    """Forced tokens score as their parents do, and the draft knows few different logits."""
    vocabulary = SemanticIDVocabulary(_SIZES)
    constraint, expansion = constraint_of("catalog", vocabulary), DynamicTree(5, width, nodes)
    steps, choice = PathSteps(3, vocabulary.size, seed, levels=levels), choice_of(0.0, 3, 5, vocabulary)
    tree = expansion.expand(
        TreeContext(torch.tensor([1, 1, 1]), constraint.initial(3, _CPU), constraint, choice, steps, TreeOperations())
    )
    for row in range(3):
        paths = paths_of(tree, row)
        present = [path for path, is_present in zip(paths, tree.present[row].tolist(), strict=True) if is_present]
        assert len(set(present)) == len(present)
        assert all(path[:-1] in present for path in present if path)
        assert all(path[:-1] in paths for path in paths)
        assert tree.depths[row].tolist() == [len(path) for path in paths]


def test_a_forced_chain_is_followed_to_its_end() -> None:
    """One item in the catalog: whatever the draft thinks, the tree reaches as deep as it may."""
    vocabulary = SemanticIDVocabulary((4, 4, 4, 4), separator=False)
    catalog = random_catalog((4, 4, 4, 4), 1)
    constraint = catalog_constraint(catalog, vocabulary, 1)
    steps = PathSteps(1, vocabulary.size, seed=0)
    tree = DynamicTree(depth=4, width=3, nodes=5).expand(
        TreeContext(
            torch.tensor([1]),
            constraint.initial(1, _CPU),
            constraint,
            choice_of(1.0, 1, 4, vocabulary),
            steps,
            TreeOperations(),
        )
    )
    assert tree.tokens[0, 1:].tolist() == vocabulary.encode(catalog.codes)[0].tolist()
    assert tree.parents[0].tolist() == [0, 0, 1, 2, 3]


def test_no_more_nodes_are_promised_than_can_grow() -> None:
    assert DynamicTree(depth=1, width=4, nodes=60).nodes == 5
    assert DynamicTree(depth=3, width=2, nodes=60).nodes == 1 + 2 + 4 + 4
    assert DynamicTree().nodes == 60
    assert (DynamicTree().draft_rows, DynamicTree().draft_passes) == (50, 6)


def test_sharper_guesses_make_deeper_trees() -> None:
    """Tokens of 0.6 and 0.4 after every node: the best two nodes are siblings, or a chain where 0.6 counts more."""
    vocabulary = SemanticIDVocabulary((2,), separator=False)
    logits = torch.full((vocabulary.size,), -torch.inf)
    logits[-2:] = torch.tensor([0.6, 0.4]).log()
    trees = {}
    for greedy_temperature in (1.0, 0.5):
        tree = DynamicTree(2, 2, 3, greedy_temperature).expand(
            TreeContext(
                torch.tensor([1]),
                FreeDecoding(vocabulary).initial(1, _CPU),
                FreeDecoding(vocabulary),
                choice_of(0.0, 1, 2, vocabulary),
                SameSteps(logits),
                TreeOperations(),
            )
        )
        trees[greedy_temperature] = tree
    assert trees[1.0].depths[0].tolist() == [0, 1, 1]
    assert trees[1.0].scores[0].exp().tolist() == pytest.approx([1, 0.6, 0.4])
    # 0.6² ÷ (0.6² + 0.4²) = 9/13, whose square is more than the 4/13 of the sibling.
    assert trees[0.5].depths[0].tolist() == [0, 1, 2]
    assert trees[0.5].scores[0].exp().tolist() == pytest.approx([1, 9 / 13, (9 / 13) ** 2])


@pytest.mark.parametrize("name", ["free", "catalog"])
@pytest.mark.parametrize("temperature", [0.0, 1.0, 0.3])
@pytest.mark.parametrize("depth", [1, 4, 7])
def test_every_node_is_the_most_probable_token_after_the_one_before(name: str, temperature: float, depth: int) -> None:
    vocabulary, batch = SemanticIDVocabulary(_SIZES), 3
    constraint = constraint_of(name, vocabulary)
    chain, steps = Chain(depth), PathSteps(batch, vocabulary.size, seed=1)
    choice = choice_of(temperature, batch, depth, vocabulary)
    tree = chain.expand(
        TreeContext(
            torch.tensor([3, 3, 3]), constraint.initial(batch, _CPU), constraint, choice, steps, TreeOperations()
        )
    )
    assert (chain.depth, chain.nodes, chain.leaves) == (depth, depth + 1, 1)
    assert (chain.draft_rows, chain.draft_passes) == (depth - 1, depth)
    assert tree.parents.tolist() == [[0, *range(depth)]] * batch
    assert tree.depths.tolist() == [[*range(depth + 1)]] * batch
    assert tree.is_childless.sum(1).tolist() == [chain.leaves] * batch
    assert tree.present.all()
    for row in range(batch):
        state, path = constraint.initial(1, _CPU), tuple[int, ...]()
        for node in range(1, depth + 1):
            logits = steps.path_logits(row, path).expand(batch, 1, -1)
            allowed = constraint.allowed(state)
            chances = choice.log_chances(logits, allowed, node - 1)[row, 0]
            token = int(chances.argmax())
            assert int(tree.tokens[row, node]) == token
            state, path = constraint.advance(state, torch.tensor([token])), (*path, token)
            for field, value in vars(state).items():
                assert torch.equal(getattr(tree.states, field)[row, node], value[0])
    assert [(read, n_nodes) for read, n_nodes, _ in steps.calls] == [(at, 1) for at in range(1, depth)]
    for at, (_, _, slots) in enumerate(steps.calls, start=1):
        assert torch.equal(slots, tree.states.slot[:, at : at + 1])
