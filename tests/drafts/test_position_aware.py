import pytest
import torch
from torch import Tensor, nn

from padrec.catalog import InputError
from padrec.drafts import PositionAwareEmbedding

_SIZE, _N_SLOT_STATES, _N_STEPS = 6, 5, 4
SWITCHES = [(True, True), (True, False), (False, True), (False, False)]


def random_embedding(slot_embeddings: bool = True, step_embeddings: bool = True) -> PositionAwareEmbedding:
    module = PositionAwareEmbedding(
        _SIZE, _N_SLOT_STATES, _N_STEPS, slot_embeddings=slot_embeddings, step_embeddings=step_embeddings
    ).double()
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module


def random_inputs() -> tuple[Tensor, Tensor]:
    """Fused inputs `[B, T, d]` and slots `[B, T]`, every slot among them."""
    return torch.randn(3, _N_SLOT_STATES, _SIZE, dtype=torch.float64), torch.arange(_N_SLOT_STATES).expand(3, -1)


def plain_output(module: PositionAwareEmbedding, fused: Tensor, slot: int, step: int) -> Tensor:
    """One input, `[d]`, written out from the equations."""
    result = fused.clone()
    if module.slot_embedding is not None and module.slot_coefficient is not None:
        result += module.slot_coefficient * module.slot_embedding[slot]
    if module.step_embedding is not None and module.gate is not None and step > 0:
        gate = 1 / (1 + torch.exp(-(module.gate.weight[0] @ fused + module.gate.bias[0])))
        result += gate * module.step_embedding[min(step, _N_STEPS - 1) - 1]
    return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("step", [0, 1, _N_STEPS - 1, 9])
def test_output_equals_input_exactly_at_initialisation(step: int, dtype: torch.dtype) -> None:
    fused, slots = random_inputs()
    fused = fused.to(dtype)
    module = PositionAwareEmbedding(_SIZE, _N_SLOT_STATES, _N_STEPS).to(dtype)
    assert torch.equal(module(fused, slots, step), fused)


def test_gradients_reach_both_embeddings_at_once() -> None:
    module = PositionAwareEmbedding(_SIZE, _N_SLOT_STATES, _N_STEPS)
    fused, slots = random_inputs()
    module(fused.float(), slots, 2).square().sum().backward()
    assert module.slot_embedding is not None
    assert module.slot_embedding.grad is not None
    assert module.step_embedding is not None
    assert module.step_embedding.grad is not None
    assert (module.slot_embedding.grad != 0).all()
    assert (module.step_embedding.grad[1] != 0).all()
    assert (module.step_embedding.grad[[0, 2]] == 0).all()  # of the steps 1 and 3


@pytest.mark.parametrize("step", range(_N_STEPS + 2))
@pytest.mark.parametrize(("slot_embeddings", "step_embeddings"), SWITCHES)
def test_each_half_adds_its_own_term(slot_embeddings: bool, step_embeddings: bool, step: int) -> None:
    module = random_embedding(slot_embeddings, step_embeddings)
    fused, slots = random_inputs()
    result = module(fused, slots, step)
    for row in range(fused.shape[0]):
        for place in range(fused.shape[1]):
            expected = plain_output(module, fused[row, place], int(slots[row, place]), step)
            torch.testing.assert_close(result[row, place], expected, rtol=0, atol=1e-12)


def test_features_of_the_target_have_no_step_term() -> None:
    module = random_embedding(slot_embeddings=False)
    fused, slots = random_inputs()
    assert torch.equal(module(fused, slots, 0), fused)


def test_deep_steps_share_the_last_embedding() -> None:
    module = random_embedding()
    fused, slots = random_inputs()
    last = module(fused, slots, _N_STEPS - 1)
    assert torch.equal(module(fused, slots, _N_STEPS), last)
    assert torch.equal(module(fused, slots, 50), last)
    assert not torch.equal(module(fused, slots, _N_STEPS - 2), last)


@pytest.mark.parametrize(("d", "n_slots", "n_steps"), [(4096, 4, 8), (32, 3, 2)])
def test_number_of_parameters(d: int, n_slots: int, n_steps: int) -> None:
    def count(slot_embeddings: bool, step_embeddings: bool) -> int:
        module = PositionAwareEmbedding(
            d, n_slots + 2, n_steps, slot_embeddings=slot_embeddings, step_embeddings=step_embeddings
        )
        return sum(parameter.numel() for parameter in module.parameters())

    slot_part, step_part = (n_slots + 2) * d + 1, (n_steps - 1) * d + d + 1
    assert count(True, True) == slot_part + step_part
    assert count(True, False) == slot_part
    assert count(False, True) == step_part
    assert count(False, False) == 0
    if d == 4096:
        assert count(True, True) == 57_346


def test_step_embeddings_need_a_second_step() -> None:
    with pytest.raises(InputError, match="1 draft step: expected at least 2"):
        PositionAwareEmbedding(_SIZE, _N_SLOT_STATES, 1)
    PositionAwareEmbedding(_SIZE, _N_SLOT_STATES, 1, step_embeddings=False)
