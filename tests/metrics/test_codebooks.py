import math
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from padrec.catalog import InputError
from padrec.metrics import CodebookQuality


@given(rows=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4)), min_size=1, max_size=30), data=st.data())
def test_values_equal_their_definitions(rows: list[tuple[int, int]], data: st.DataObject) -> None:
    metric = CodebookQuality(len(rows), (3, 5))
    codes, errors = torch.tensor(rows), torch.rand(len(rows), 2)
    # In any order, in any batches, some items twice.
    order = data.draw(st.permutations(range(len(rows)))) + data.draw(
        st.lists(st.integers(0, len(rows) - 1), max_size=5)
    )
    for batch in torch.tensor(order).split(4):
        metric.update(batch, codes[batch], errors[batch])
    found = metric.compute()
    for slot, size in enumerate((3, 5)):
        shares = [count / len(rows) for count in Counter(row[slot] for row in rows).values()]
        assert found[f"codes_used/slot_{slot}"].item() == pytest.approx(len(shares) / size)
        entropy = -sum(share * math.log(share) for share in shares)
        assert found[f"perplexity/slot_{slot}"].item() == pytest.approx(math.exp(entropy))
        assert found[f"reconstruction/slot_{slot}"].item() == pytest.approx(errors[:, slot].double().mean().item())
    assert found["collisions"].item() == len(rows) - len(set(rows))


def test_items_not_seen_are_left_out() -> None:
    metric = CodebookQuality(5, (2,))
    metric.update(torch.tensor([4, 1]), torch.tensor([[1], [1]]), torch.tensor([[2.0], [4.0]]))
    found = metric.compute()
    names = ("collisions", "reconstruction/slot_0", "codes_used/slot_0")
    assert [found[name].item() for name in names] == [1, 3, 0.5]


def test_other_shapes_are_refused() -> None:
    with pytest.raises(InputError, match=r"^codes \[2, 1\] and errors \[2, 2\], expected \[2, 2\]$"):
        CodebookQuality(5, (2, 2)).update(torch.arange(2), torch.zeros(2, 1), torch.zeros(2, 2))
