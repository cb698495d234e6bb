from collections.abc import Sequence

import pytest
import torch

from padrec.catalog import InputError, SemanticIDVocabulary
from padrec.decoding import (
    Choice,
    Constraint,
    FreeDecoding,
    ListState,
    Sampling,
    StaticTree,
    TreeContext,
)
from padrec.decoding.trees.tree_operations import TreeOperations
from tests.decoding.trees.test_dynamic_tree import catalog_constraint, choice_of, row_of
from tests.stubs import PathSteps, random_catalog

_SIZES = (4, 5, 3)
_VOCABULARY = SemanticIDVocabulary(_SIZES)
_SHAPES: dict[str, list[list[int]]] = {
    "one node": [[0]],
    "chain": [[0], [0, 0], [0, 0, 0], [0, 0, 0, 0]],
    "siblings": [[0], [1], [2]],
    "second best only": [[1], [1, 2]],
    "under the second best": [[0], [1], [0, 0], [1, 0], [1, 1], [1, 0, 0], [1, 1, 2], [0, 0, 0], [1, 1, 2, 0]],
    "unsorted": [[1, 0], [0, 0, 1], [0], [0, 2], [1], [0, 0], [0, 0, 0], [2], [0, 2, 0]],
}
_CPU = torch.device("cpu")


def constraints() -> dict[str, Constraint[ListState]]:
    catalog = catalog_constraint(random_catalog(_SIZES, 30), _VOCABULARY, 3)
    return {"free": FreeDecoding(_VOCABULARY), "catalog": catalog}


def ranked_path(
    steps: PathSteps,
    row: int,
    constraint: Constraint[ListState],
    choice: Choice,
    state: ListState,
    ranks: Sequence[int],
) -> tuple[tuple[int, ...], float, ListState] | None:
    """Tokens along a path of ranks, their score and the state after them; None where fewer tokens are allowed than a
    rank says."""
    choice = row_of(choice, row)
    tokens: tuple[int, ...] = ()
    score = 0.0
    for depth, rank in enumerate(ranks):
        logits = steps.path_logits(row, tokens)[None, None]
        log_probs = choice.log_chances(logits, constraint.allowed(state), depth)[0, 0].tolist()
        order = sorted(range(len(log_probs)), key=lambda token: -log_probs[token])
        if log_probs[order[rank]] == -torch.inf:
            return None
        tokens += (order[rank],)
        score += log_probs[order[rank]]
        state = constraint.advance(state, torch.tensor([order[rank]]))
    return tokens, score, state


@pytest.mark.parametrize("shape", _SHAPES)
@pytest.mark.parametrize("name", ["free", "catalog"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_every_node_is_the_draft_token_of_its_rank(shape: str, name: str, temperature: float) -> None:
    constraint, choices, batch = constraints()[name], _SHAPES[shape], 3
    expansion, steps = StaticTree(choices), PathSteps(batch, _VOCABULARY.size, seed=3)
    root, state = torch.tensor([3, 3, 3]), constraint.initial(batch, _CPU)
    choice = choice_of(temperature, batch, expansion.depth, _VOCABULARY)
    tree = expansion.expand(TreeContext(root, state, constraint, choice, steps, TreeOperations()))
    assert tree.tokens.shape == (batch, expansion.nodes) == (batch, len(choices) + 1)
    assert tree.max_depth == expansion.depth == max(map(len, choices))
    assert tree.is_childless.sum(1).tolist() == [expansion.leaves] * batch
    compared = 0
    for row in range(batch):
        order = [(), *sorted(map(tuple, choices), key=lambda path: (len(path), path))]
        assert tree.parents[row].tolist() == [order.index(path[:-1]) for path in order]
        for node, ranks in enumerate(order):
            alone = constraint.initial(1, _CPU)
            expected = ranked_path(steps, row, constraint, choice, alone, ranks)
            if expected is None:
                continue
            tokens, score, after = expected
            assert float(tree.scores[row, node]) == pytest.approx(score, abs=1e-5)
            assert int(tree.tokens[row, node]) == (tokens[-1] if tokens else 3)
            for field, value in vars(after).items():
                assert torch.equal(getattr(tree.states, field)[row, node], value[0])
            compared += 1
    assert compared > batch * (len(choices) + 1) / 2


@pytest.mark.parametrize("shape", _SHAPES)
def test_the_draft_reads_only_nodes_that_have_children(shape: str) -> None:
    choices, constraint = _SHAPES[shape], constraints()["free"]
    expansion, steps = StaticTree(choices), PathSteps(2, _VOCABULARY.size, seed=0)
    choice = choice_of(0.0, 2, expansion.depth, _VOCABULARY)
    expansion.expand(
        TreeContext(torch.tensor([3, 3]), constraint.initial(2, _CPU), constraint, choice, steps, TreeOperations())
    )
    inner = {tuple(path[:-1]) for path in choices if len(path) > 1}
    depths = sorted({len(path) for path in inner})
    assert [(depth, n_nodes) for depth, n_nodes, _ in steps.calls] == [
        (depth, sum(len(path) == depth for path in inner)) for depth in depths
    ]
    assert expansion.draft_rows == len(inner)
    assert expansion.draft_passes == len(depths) + 1


def test_more_ranks_than_tokens_keep_the_shape() -> None:
    vocabulary = SemanticIDVocabulary([1], separator=False)
    expansion, steps = StaticTree([[rank] for rank in range(9)]), PathSteps(1, vocabulary.size, seed=0)
    constraint = FreeDecoding(vocabulary)
    choice = Choice(Sampling(), None)
    tree = expansion.expand(
        TreeContext(torch.tensor([1]), constraint.initial(1, _CPU), constraint, choice, steps, TreeOperations())
    )
    assert tree.tokens.shape == (1, 10)
    assert set(tree.tokens[0, 1:].tolist()) == set(range(vocabulary.size))


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ([], r"static tree with 0 nodes"),
        ([[0], [0, 1, 0]], r"static tree with node \[0, 1, 0\] without its parent"),
        ([[0], [1], [0]], r"static tree with 3 nodes, some of them twice"),
        ([[0], []], r"static tree with node \[\] without its parent"),
    ],
)
def test_a_shape_that_is_no_tree_is_refused(choices: list[list[int]], message: str) -> None:
    with pytest.raises(InputError, match=rf"^{message}.*: expected distinct paths of ranks"):
        StaticTree(choices)
