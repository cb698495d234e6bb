import random
from collections import defaultdict
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from padrec.catalog import SemanticIDVocabulary
from padrec.decoding import (
    Constraint,
    FreeDecoding,
    ListRequest,
    ListState,
    Sampling,
    TokenTree,
    choose,
    masked_log_softmax,
)
from padrec.decoding.lists.verification import accept
from tests.reference import sequential_rejection_law, walk
from tests.stubs import random_catalog

_SIZES = (3, 4)
_VOCABULARY = SemanticIDVocabulary(_SIZES)
_REQUEST = ListRequest.build(random_catalog(_SIZES, 9), _VOCABULARY, 3)
Node = tuple[int, int]  # parent and token


@st.composite
def trees(draw: st.DrawFn) -> list[Node]:
    """Siblings of different tokens; the root carries token 0."""
    nodes = [(0, 0)]
    for _ in range(draw(st.integers(0, 9))):
        parent, token = draw(st.integers(0, len(nodes) - 1)), draw(st.integers(0, 3))
        if (parent, token) not in nodes[1:]:
            nodes.append((parent, token))
    return nodes


def token_tree(rows: list[list[Node]], max_depth: int) -> TokenTree:
    parents, tokens = (torch.tensor([[node[part] for node in row] for row in rows]) for part in (0, 1))
    return TokenTree.from_parents(tokens, parents, ListState(parents), max_depth)


@given(tree=trees(), data=st.data())
def test_the_path_of_chosen_tokens_is_kept(tree: list[Node], data: st.DataObject) -> None:
    parents, tokens = zip(*tree, strict=True)
    row = st.lists(st.integers(0, 3), min_size=len(tree), max_size=len(tree))
    chosen = data.draw(st.lists(row, min_size=1, max_size=4))
    max_depth = len(tree)
    outcome = accept(token_tree([tree] * len(chosen), max_depth), torch.tensor(chosen))
    assert outcome.path.shape == outcome.emitted.shape == (len(chosen), max_depth + 1)
    for number, choices in enumerate(chosen):
        path, emitted = walk(tokens, parents, choices)
        count = int(outcome.count[number])
        assert count == len(path) - 1
        assert outcome.path[number].tolist() == path + [0] * (max_depth - count)
        assert outcome.emitted[number, : count + 1].tolist() == emitted


@given(tree=trees(), data=st.data())
def test_absent_nodes_are_never_kept(tree: list[Node], data: st.DataObject) -> None:
    """As if they carried a token that nobody chooses."""
    parents, tokens = zip(*tree, strict=True)
    present = [True, *data.draw(st.lists(st.booleans(), min_size=len(tree) - 1, max_size=len(tree) - 1))]
    chosen = data.draw(st.lists(st.integers(0, 3), min_size=len(tree), max_size=len(tree)))
    known = replace(token_tree([tree], len(tree)), present=torch.tensor([present]))
    path, emitted = walk([token if here else -1 for token, here in zip(tokens, present, strict=True)], parents, chosen)
    outcome = accept(known, torch.tensor([chosen]))
    assert int(outcome.count) == len(path) - 1
    assert outcome.path[0, : len(path)].tolist() == path
    assert outcome.emitted[0, : len(path)].tolist() == emitted


def test_rows_of_different_shapes_do_not_disturb_each_other() -> None:
    coin = random.Random(0)
    rows: list[list[Node]] = []
    n_nodes = 7
    while len(rows) < 50:
        nodes: list[Node] = [(0, 0)]
        while len(nodes) < n_nodes:
            node = coin.randrange(len(nodes)), coin.randrange(3)
            if node not in nodes[1:]:
                nodes.append(node)
        rows.append(nodes)
    chosen = [[coin.randrange(3) for _ in range(n_nodes)] for _ in rows]
    outcome = accept(token_tree(rows, n_nodes), torch.tensor(chosen))
    for number, (nodes, choices) in enumerate(zip(rows, chosen, strict=True)):
        parents, tokens = zip(*nodes, strict=True)
        path, emitted = walk(tokens, parents, choices)
        assert outcome.path[number, : len(path)].tolist() == path
        assert outcome.emitted[number, : len(path)].tolist() == emitted


_SHAPES: dict[str, list[Node]] = {
    "root alone": [(0, 0)],
    "chain": [(0, 0), (0, 1), (1, 2), (2, 0)],
    "siblings": [(0, 0), (0, 2), (0, 0), (0, 1)],
    "tree": [(0, 0), (0, 1), (0, 2), (1, 0), (1, 2)],
    "deep and wide": [(0, 0), (0, 2), (1, 1), (1, 0), (3, 2), (0, 1)],
}


@pytest.mark.parametrize("shape", _SHAPES)
@pytest.mark.parametrize("with_zeros", [False, True])
def test_drawing_at_every_node_emits_what_sequential_rejection_emits(shape: str, with_zeros: bool) -> None:
    """All draws of all nodes are enumerated, each with its exact probability under random target distributions."""
    nodes, n_tokens, coin = _SHAPES[shape], 3, random.Random(1)
    parents, tokens = zip(*nodes, strict=True)
    target = [[coin.random() for _ in range(n_tokens)] for _ in nodes]
    if with_zeros:  # a constraint forbids one token at each node
        for number, weights in enumerate(target):
            weights[number % n_tokens] = 0.0
    target = [[weight / sum(weights) for weight in weights] for weights in target]
    expected: defaultdict[tuple[int, ...], float] = defaultdict(float)
    for emitted, probability in sequential_rejection_law(tokens, parents, target):
        expected[emitted] += probability
    draws = list(product(range(n_tokens), repeat=len(nodes)))
    outcome = accept(token_tree([nodes] * len(draws), len(nodes)), torch.tensor(draws))
    found: defaultdict[tuple[int, ...], float] = defaultdict(float)
    for number, draw in enumerate(draws):
        probability = 1.0
        for node, token in enumerate(draw):
            probability *= target[node][token]
        length = int(outcome.count[number]) + 1
        found[tuple(outcome.emitted[number, :length].tolist())] += probability
    possible = {emitted: probability for emitted, probability in expected.items() if probability > 0}
    assert {emitted: probability for emitted, probability in found.items() if probability > 0} == pytest.approx(
        possible
    )
    assert sum(possible.values()) == pytest.approx(1)
    for token in range(n_tokens):  # lossless: the first token has the target's probability
        first = sum(probability for emitted, probability in found.items() if emitted[0] == token)
        assert first == pytest.approx(target[0][token])


def nodes_of(constraint: Constraint[Any], batch: int, path: list[int]) -> ListState:
    """States `[batch, 1]` after some tokens."""
    states: ListState = constraint.initial(batch, torch.device("cpu")).unsqueeze()
    for token in path:
        states = constraint.advance(states, torch.full((batch, 1), token))
    return states


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(0.7), Sampling(1.0, top_k=2)], ids=str)
@pytest.mark.parametrize("constraint", [_REQUEST.constraint, FreeDecoding(_VOCABULARY)], ids=["catalog", "free"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
def test_the_best_allowed_token_is_chosen_and_the_state_moves_past_it(
    dtype: torch.dtype, constraint: Constraint[Any], sampling: Sampling
) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 1, _VOCABULARY.size, generator=generator).to(dtype)
    item = _VOCABULARY.encode(_REQUEST.catalog.leaf_codes[0])[:2].tolist()
    keys, depths = torch.tensor([3, 4]), torch.zeros(2, 1, dtype=torch.long)
    for path in ([], item[:1], item):
        states = nodes_of(constraint, 2, path)
        choice = sampling.choice(keys, torch.full((2,), len(path)), 0, _VOCABULARY.size)
        found = choose(logits, states, depths, choice, constraint)
        log_probs = masked_log_softmax(logits, constraint.allowed(states))
        assert found.tokens.tolist() == choice.scores(log_probs, depths).argmax(-1).tolist()
        torch.testing.assert_close(found.log_probs, log_probs.gather(-1, found.tokens[..., None])[..., 0])
        assert (found.log_probs > -torch.inf).all()
        after = constraint.advance(states, found.tokens)
        assert all(torch.equal(getattr(found.states, name), value) for name, value in vars(after).items())
