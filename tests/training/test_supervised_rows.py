import torch

from padrec.training import picked, rows_of


def test_picked_rows_equal_indexing_by_the_mask() -> None:
    mask = torch.tensor([[True, False, True], [False, False, True]])
    values = torch.arange(12.0).view(2, 3, 2)
    rows = rows_of(mask)
    assert rows.tolist() == [0, 2, 5]
    assert torch.equal(picked(values, rows), values[mask])
    assert torch.equal(picked(mask, rows), mask[mask])


def test_a_mask_without_true_picks_nothing() -> None:
    rows = rows_of(torch.zeros(2, 3, dtype=torch.bool))
    assert picked(torch.ones(2, 3, 4), rows).shape == (0, 4)
