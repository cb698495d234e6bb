"""List states and trees that tests of kernels begin with and compare, shared by several rooms."""

from dataclasses import fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from padrec.decoding import Constraint, ListState, TokenTree
from padrec.decoding.lists.list_state import concatenate

S = TypeVar("S", bound=ListState)
_OF_NODES = ("tokens", "parents", "depths", "ancestors", "scores", "present")


def walked(constraint: Constraint[Any], steps: list[int], seed: int) -> ListState:
    """States `[rows]` after that many allowed tokens each, drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    state = constraint.initial(len(steps), torch.device("cpu")).unsqueeze()
    seen = [state]
    for _ in range(max(steps)):
        allowed = constraint.allowed(state)
        chances = torch.ones(len(steps), 1, 40) if allowed is None else allowed.double()
        # After the end of a list nothing is allowed, and any token is drawn.
        chances = chances + (chances.sum(-1, keepdim=True) == 0)
        token = torch.multinomial(chances.flatten(0, 1), 1, generator=generator)
        state = constraint.advance(state, token)
        seen.append(state)
    walk: ListState = concatenate(seen)
    return walk.gather(torch.tensor(steps)[:, None]).squeeze()


def states_on(device: torch.device, states: S) -> S:
    return states.map(lambda value: value.to(device))


def tree_on(device: torch.device, tree: TokenTree) -> TokenTree:
    moved = {name: getattr(tree, name).to(device) for name in _OF_NODES}
    return replace(tree, **moved, states=states_on(device, tree.states))


def assert_same_states(found: ListState, expected: ListState, where: Tensor) -> None:
    for field in fields(expected):
        value = getattr(found, field.name).cpu()
        assert torch.equal(value[where], getattr(expected, field.name)[where]), field.name


def assert_same_tree(found: TokenTree, expected: TokenTree) -> None:
    """Nodes that only fill a row up may differ."""
    present = expected.present
    assert torch.equal(found.present.cpu(), present)
    for name in ("tokens", "parents", "depths", "ancestors"):
        assert torch.equal(getattr(found, name).cpu()[present], getattr(expected, name)[present]), name
    scores = (tree.scores.cpu()[present].float() for tree in (found, expected))
    torch.testing.assert_close(*scores, atol=1e-4, rtol=1e-5)
    assert_same_states(found.states, expected.states, present)
    assert found.max_depth == expected.max_depth
