import torch
from hypothesis import given
from hypothesis import strategies as st

from padrec.decoding import ListState, TokenTree, concatenate


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
    for name in ("tokens", "parents", "depths", "ancestors", "scores", "present"):
        assert torch.equal(getattr(tree, name), getattr(same, name))
    assert torch.equal(tree.states.slot, same.states.slot)


@given(rows=parent_lists(), n_leaves=st.integers(1, 3), length=st.integers(1, 4), data=st.data())
def test_a_tree_with_runs_is_the_tree_of_all_parents(
    rows: list[list[int]], n_leaves: int, length: int, data: st.DataObject
) -> None:
    n_nodes, n_new = len(rows[0]), n_leaves * length
    below = st.lists(st.integers(0, n_nodes - 1), min_size=n_leaves, max_size=n_leaves)
    leaves = [data.draw(below) for _ in rows]
    parents = torch.tensor(rows)
    tree = TokenTree.from_parents(parents + 7, parents, ListState(parents), n_nodes, -parents.float())
    tokens = torch.arange(n_new).expand(len(rows), -1)
    present = tokens % 3 > 0
    states = [ListState(tokens[:, :n_leaves] + 10 * step) for step in range(length)]
    grown = tree.with_runs(torch.tensor(leaves), tokens, present, states)
    all_parents = [
        own + run_parents + list(range(n_nodes, n_nodes + n_new - n_leaves))
        for own, run_parents in zip(rows, leaves, strict=True)
    ]
    expected = TokenTree.from_parents(
        torch.cat([tree.tokens, tokens], 1),
        torch.tensor(all_parents),
        concatenate([tree.states, *states]),
        n_nodes + length,
    )
    for name in ("tokens", "parents", "depths", "ancestors"):
        assert torch.equal(getattr(grown, name), getattr(expected, name))
    assert torch.equal(grown.states.slot, expected.states.slot)
    assert grown.max_depth == expected.max_depth
    assert torch.equal(grown.present, torch.cat([tree.present, present], 1))
    for row, run_parents in enumerate(leaves):
        assert grown.scores[row, n_nodes:].tolist() == [-float(rows[row][leaf]) for leaf in run_parents] * length


@given(rows=parent_lists())
def test_childless_nodes_are_nobodys_parents(rows: list[list[int]]) -> None:
    parents = torch.tensor(rows)
    tree = TokenTree.from_parents(parents, parents, ListState(parents), len(rows[0]))
    assert tree.is_childless.tolist() == [[node not in row[1:] for node in range(len(row))] for row in rows]
