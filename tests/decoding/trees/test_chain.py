import pytest
import torch

from padrec.catalog import CatalogTrie, InputError, SemanticIDVocabulary
from padrec.decoding import CatalogConstraint, Chain, Constraint, FreeDecoding, ListState, Sampling
from padrec.decoding.trees.tree_operations import TreeOperations
from tests.stubs import PathSteps, random_catalog

_SIZES = (4, 5, 3)
_VOCABULARY = SemanticIDVocabulary(_SIZES)
_CPU = torch.device("cpu")


def constraint_of(name: str) -> Constraint[ListState]:
    if name == "free":
        return FreeDecoding(_VOCABULARY)
    trie = CatalogTrie(random_catalog(_SIZES, 30), _VOCABULARY)
    return CatalogConstraint(trie, _VOCABULARY, 3)  # type: ignore[return-value]


@pytest.mark.parametrize("name", ["free", "catalog"])
@pytest.mark.parametrize("temperature", [0.0, 1.0, 0.3])
@pytest.mark.parametrize("depth", [1, 4, 7])
def test_every_node_is_the_most_probable_token_behind_the_one_before(name: str, temperature: float, depth: int) -> None:
    constraint, batch = constraint_of(name), 3
    chain, steps = Chain(depth), PathSteps(batch, _VOCABULARY.size, seed=1)
    positions = torch.zeros(batch, dtype=torch.int64)
    choice = Sampling(temperature).choice(torch.arange(batch), positions, depth, _VOCABULARY.size)
    tree = chain.expand(
        torch.tensor([3, 3, 3]), constraint.initial(batch, _CPU), constraint, choice, steps, TreeOperations()
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


@pytest.mark.parametrize("depth", [0, -1])
def test_a_chain_without_nodes_is_refused(depth: int) -> None:
    with pytest.raises(InputError, match=rf"^chain of depth {depth}: expected at least 1$"):
        Chain(depth)
