import torch
from hypothesis import given
from hypothesis import strategies as st

from padrec.decoding import ListState, TokenTree


@st.composite
def parent_lists(draw: st.DrawFn) -> list[list[int]]:
    """Parents before their children, another shape for each row."""
    n_nodes = draw(st.integers(1, 9))
    row = st.tuples(st.just(0), *(st.integers(0, node - 1) for node in range(1, n_nodes))).map(list)
    return draw(st.lists(row, min_size=1, max_size=3))


@given(rows=parent_lists(), slack=st.integers(0, 2))
def test_depths_and_ancestors_follow_from_the_parents(rows: list[list[int]], slack: int) -> None:
    ancestors, depths = [], []
    for parents in rows:
        above = [{0}]
        for node in range(1, len(parents)):
            above.append(above[parents[node]] | {node})
        ancestors.append([[other in own for other in range(len(parents))] for own in above])
        depths.append([len(own) - 1 for own in above])
    parents_tensor = torch.tensor(rows)
    states = ListState(parents_tensor)
    max_depth = max(map(max, depths)) + slack
    tree = TokenTree.from_parents(parents_tensor + 7, parents_tensor, states, max_depth)
    assert tree.depths.tolist() == depths
    assert tree.ancestors.tolist() == ancestors
    assert torch.equal(tree.tokens, parents_tensor + 7)
    assert (tree.parents is parents_tensor, tree.states, tree.max_depth) == (True, states, max_depth)


def test_a_root_alone_is_a_tree_of_one_node() -> None:
    tokens, states = torch.tensor([5, 9]), ListState(torch.tensor([0, 1]))
    tree = TokenTree.root_only(tokens, states)
    same = TokenTree.from_parents(tokens[:, None], torch.zeros(2, 1, dtype=torch.int64), states.unsqueeze(), 0)
    for name in ("tokens", "parents", "depths", "ancestors"):
        assert torch.equal(getattr(tree, name), getattr(same, name))
    assert torch.equal(tree.states.slot, same.states.slot)
