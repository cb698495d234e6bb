"""The position-aware part and all its forms, against their equations written out for one input."""

import pytest
import torch
from torch import Tensor, nn

from padrec.catalog import InputError
from padrec.drafts import PositionAware, PositionAwareEmbedding
from padrec.drafts.position_aware import PAD_REC

_SIZE, _N_SLOT_STATES, _N_STEPS = 6, 5, 4
FORMS = [
    PAD_REC,
    PositionAware(slots=None, steps=None),
    PositionAware(steps=None),
    PositionAware(slots=None),
    PositionAware(slots="next", coefficient="slot"),
    PositionAware(slots="constant", coefficient="vector", gate_input=None),
    PositionAware(slots="shuffled", gate="vector"),
    PositionAware(gate_input="feature"),
    PositionAware(gate="vector", gate_input="feature", site="before"),
    PositionAware(site="before"),
    PositionAware(steps="slot_and_step"),
    PositionAware(slots="next", steps="slot_and_step", site="before"),
]


def new(form: PositionAware, n_steps: int = _N_STEPS) -> PositionAwareEmbedding:
    return PositionAwareEmbedding(_SIZE, _N_SLOT_STATES, n_steps, form).double()


def random_embedding(form: PositionAware) -> PositionAwareEmbedding:
    module = new(form)
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module


def random_inputs() -> tuple[nn.Linear, Tensor, Tensor, Tensor]:
    """A fusion, embeddings and features `[B, T, d]`, and slots `[B, T]`, every slot among them."""
    embeddings, features = torch.randn(2, 3, _N_SLOT_STATES, _SIZE, dtype=torch.float64)
    return (
        nn.Linear(2 * _SIZE, _SIZE).double(),
        embeddings,
        features,
        torch.arange(_N_SLOT_STATES).expand(3, -1),
    )


def plain_output(
    module: PositionAwareEmbedding, fusion: nn.Linear, embedding: Tensor, feature: Tensor, slot: int, step: int
) -> Tensor:
    """One input, `[d]`, written out from the equations."""
    form, row = module.form, min(step, _N_STEPS - 1) - 1
    fused: Tensor = fusion(torch.cat([embedding, feature]))
    to_embedding: Tensor
    to_feature: Tensor
    to_embedding, to_feature = torch.zeros(2, _SIZE, dtype=torch.float64)  # what the two terms add
    if form.slots == "next":
        slot = (slot + 1) if slot < _N_SLOT_STATES - 2 else 0
    elif form.slots == "constant":
        slot = 0
    elif form.slots == "shuffled":
        slot = sum(2**unit for unit in range(_SIZE) if embedding[unit] > 0) % _N_SLOT_STATES
    if module.slot_embedding is not None and module.slot_coefficient is not None:
        alpha = module.slot_coefficient[slot] if form.coefficient == "slot" else module.slot_coefficient
        to_embedding = alpha * module.slot_embedding[slot]
    if module.step_embedding is not None and step > 0:
        if form.steps == "slot_and_step":
            to_embedding = to_embedding + module.step_embedding[row, slot]
        else:
            to_feature = module.step_embedding[row]
    gate = torch.ones((), dtype=torch.float64)
    if module.gate is not None:
        read = fusion.weight[:, _SIZE:] @ feature if form.gate_input == "feature" else fused
        gate = 1 / (1 + torch.exp(-(module.gate.weight @ read + module.gate.bias)))
    if form.site == "before":
        nothing = torch.zeros(_SIZE, dtype=torch.float64)
        to_embedding = fusion.weight @ torch.cat([to_embedding, nothing])
        to_feature = fusion.weight @ torch.cat([nothing, to_feature])
    return fused + to_embedding + gate * to_feature


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_output_equals_the_fused_input_exactly_at_initialisation(form: PositionAware, dtype: torch.dtype) -> None:
    fusion, embeddings, features, slots = random_inputs()
    fusion, embeddings, features = fusion.to(dtype), embeddings.to(dtype), features.to(dtype)
    for step in (0, 1, 9):
        result = new(form).to(dtype)(fusion, embeddings, features, slots, step)
        assert torch.equal(result, fusion(torch.cat([embeddings, features], -1)))


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_gradients_reach_all_embeddings_at_once(form: PositionAware) -> None:
    module = new(form)
    module(*random_inputs(), 2).square().sum().backward()
    if module.slot_embedding is not None:
        assert module.slot_embedding.grad is not None
        assert module.slot_embedding.grad.any()
    if module.step_embedding is not None:
        assert module.step_embedding.grad is not None
        assert module.step_embedding.grad[1].any()
        assert (module.step_embedding.grad[[0, 2]] == 0).all()  # of the steps 1 and 3


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_every_form_follows_its_equations(form: PositionAware) -> None:
    module, (fusion, *inputs) = random_embedding(form), random_inputs()
    for step in range(_N_STEPS + 2):
        result = module(fusion, *inputs, step)
        for row, place in [(0, 0), (0, 1), (1, 2), (1, 3), (2, 4), (2, 0)]:
            embedding, feature, slot = (values[row, place] for values in inputs)
            expected = plain_output(module, fusion, embedding, feature, int(slot), step)
            torch.testing.assert_close(result[row, place], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("d", "n_slots", "n_steps"), [(4096, 4, 8), (32, 3, 2)])
def test_number_of_parameters(d: int, n_slots: int, n_steps: int) -> None:
    def count(**form: str | None) -> int:
        module = PositionAwareEmbedding(d, n_slots + 2, n_steps, PositionAware.of(form))
        return sum(parameter.numel() for parameter in module.parameters())

    slot_part, step_part = (n_slots + 2) * d + 1, (n_steps - 1) * d + d + 1
    assert count() == count(slots="constant") == count(slots="shuffled") == slot_part + step_part
    assert count(steps=None) == slot_part
    assert count(slots=None) == step_part
    assert count(slots=None, steps=None) == 0
    if d == 4096:
        assert count() == 57_346


def test_forms_without_anything_to_learn_are_refused() -> None:
    with pytest.raises(InputError, match="1 draft step: expected at least 2"):
        new(PAD_REC, n_steps=1)
    new(PositionAware(steps=None), n_steps=1)
    with pytest.raises(InputError, match="slots is None"):
        PositionAware(slots=None, steps="slot_and_step")
