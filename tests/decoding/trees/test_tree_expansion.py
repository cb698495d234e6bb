from collections.abc import Callable

import pytest

from padrec.catalog import InputError
from padrec.decoding import Chain, DynamicTree, StaticTree, TreeExpansion


@pytest.mark.parametrize(
    "tree",
    [
        pytest.param(lambda: DynamicTree(depth=2_000), id="deep"),
        pytest.param(lambda: DynamicTree(depth=10**7, width=1), id="deeper"),
        pytest.param(lambda: DynamicTree(width=10_000), id="wide"),
        pytest.param(lambda: DynamicTree(width=100, nodes=50_000), id="large"),
        pytest.param(lambda: Chain(10**7), id="chain"),
        pytest.param(lambda: StaticTree([[rank] for rank in range(50_000)]), id="static"),
        pytest.param(lambda: StaticTree([[0] * length for length in range(1, 400)]), id="static chain"),
    ],
)
def test_a_tree_that_would_ask_for_all_memory_is_refused(tree: Callable[[], TreeExpansion]) -> None:
    with pytest.raises(
        InputError, match=r"a tree of \d+ nodes, depth \d+, from \d+ candidates .*: expected at most 1024"
    ):
        tree()


def test_large_trees_are_allowed() -> None:
    assert DynamicTree(depth=20, width=50, nodes=1000).nodes == 1000
    assert Chain(250).depth == 250
