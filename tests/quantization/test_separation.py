import pytest
import torch
from torch import Tensor

from padrec.quantization import separation_loss


def normal(n: int, d: int = 3, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def reference(latents: Tensor, margin: float) -> Tensor:
    """Item after item, pair after pair."""
    total = latents.new_zeros(())
    for item in latents:
        distances = [(item - other).square().sum().sqrt() for other in latents]
        nearest = min((d for d in distances if d > margin / 1000), default=torch.tensor(torch.inf))
        total = total + torch.log(margin / nearest).clamp(min=0)
    return total / len(latents)


@pytest.mark.parametrize("margin", [0.1, 0.7, 5.0])
def test_the_loss_and_its_gradient_equal_their_equation(margin: float) -> None:
    latents, same = normal(30).requires_grad_(), normal(30).requires_grad_()
    loss, expected = separation_loss(latents, margin), reference(same, margin)
    torch.testing.assert_close(loss, expected)
    if expected > 0:
        loss.backward()
        expected.backward()
        torch.testing.assert_close(latents.grad, same.grad)


def test_items_beyond_a_batch_of_rows_are_neighbours_too() -> None:
    latents = torch.arange(3000.0)[:, None] * 10
    latents[2999] = latents[0] + 1
    torch.testing.assert_close(separation_loss(latents, 4.0), torch.tensor(4.0).log() * 2 / 3000)


def test_close_items_move_apart_and_distant_ones_stay() -> None:
    latents = torch.tensor([[0.0, 0.0], [0.1, 0.0], [5.0, 0.0]], requires_grad=True)
    separation_loss(latents, 1.0).backward()
    assert latents.grad is not None
    assert latents.grad[0, 0] > 0 > latents.grad[1, 0]  # a step against the gradient: left and right
    assert not latents.grad[2].any()


def test_equal_items_are_pushed_away_from_others_but_not_from_each_other() -> None:
    latents = torch.tensor([[0.0], [0.0], [0.5]], requires_grad=True)
    loss = separation_loss(latents, 1.0)
    torch.testing.assert_close(loss.detach(), torch.tensor(2.0).log())
    loss.backward()
    assert latents.grad is not None
    assert latents.grad.isfinite().all()
    assert latents.grad.all()


@pytest.mark.parametrize(("n", "margin"), [(1, 1.0), (4, 0.0)])
def test_without_neighbours_there_is_no_loss(n: int, margin: float) -> None:
    latents = torch.ones(n, 2, requires_grad=True)
    loss = separation_loss(latents, margin)
    loss.backward()
    assert loss.item() == 0
    assert latents.grad is not None
    assert not latents.grad.any()
