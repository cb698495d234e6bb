import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from padrec.catalog import SemanticIDVocabulary
from padrec.drafts import FeatureDraftNetwork, Window, step_mask, unroll
from padrec.training import picked, rows_of
from tests.drafts.reference_drafting import random_network, simulated_drafting
from tests.stubs import tiny_target

_LENGTH, _STEPS = 8, 5
_VOCABULARY = SemanticIDVocabulary((5, 6, 7))


def draft_and_inputs(model_type: str = "llama") -> tuple[FeatureDraftNetwork, Tensor, Tensor, Tensor]:
    """A draft, embeddings `[2, T, d]`, features `[2, T, d]` and slots `[2, T]`, float64."""
    network = random_network(tiny_target(_VOCABULARY, model_type=model_type), _VOCABULARY.n_slot_states)
    generator = torch.Generator().manual_seed(1)
    embeddings, features = torch.randn(2, 2, _LENGTH, network.hidden_size, generator=generator, dtype=torch.float64)
    return network, embeddings, features, torch.randint(_VOCABULARY.n_slot_states, (2, _LENGTH), generator=generator)


@pytest.mark.parametrize("step", range(4))
def test_a_query_sees_target_features_first_and_then_one_column_of_each_draft_step(step: int) -> None:
    (mask,) = step_mask(Window.whole(_LENGTH).columns, _LENGTH, step)
    assert mask.shape == (_LENGTH, (step + 1) * _LENGTH)
    for t in range(_LENGTH):
        expected = {(0, column) for column in range(t - step + 1)}
        expected |= {(made, t - step + made) for made in range(1, step + 1) if t - step + made >= 0}
        seen = {(int(at) // _LENGTH, int(at) % _LENGTH) for at in mask[t].nonzero()}
        assert seen == expected


@pytest.mark.parametrize("model_type", ["llama", "qwen3"])
def test_unrolling_predicts_what_drafting_would(model_type: str) -> None:
    network, embeddings, features, slots = draft_and_inputs(model_type)
    with torch.no_grad():
        steps = list(unroll(network, embeddings, features, slots, _STEPS))
        assert len(steps) == _STEPS
        for step, predicted in enumerate(steps):
            for row in range(2):
                for t in range(step, _LENGTH):
                    expected = simulated_drafting(network, embeddings[row], features[row], slots[row], t, step)
                    torch.testing.assert_close(predicted[row, t], expected, rtol=0, atol=1e-9)


def test_what_a_query_must_not_see_has_no_weight_at_all() -> None:
    network, embeddings, features, slots = draft_and_inputs()
    with torch.no_grad():
        before = list(unroll(network, embeddings, features, slots, _STEPS))
        for step in range(_STEPS):
            for t in range(step, _LENGTH - 1):
                # Later tokens, and the target's features of what the draft has only predicted.
                other_embeddings, other_features, other_slots = embeddings.clone(), features.clone(), slots.clone()
                other_embeddings[:, t + 1 :] = 50.0
                other_features[:, t - step + 1 :] = -50.0
                other_slots[:, t + 1 :] = 0
                after = list(unroll(network, other_embeddings, other_features, other_slots, step + 1))
                assert torch.equal(after[step][:, t], before[step][:, t])


@st.composite
def trained_columns(draw: st.DrawFn) -> Tensor:
    """Of each of two rows any columns, or none; often the last ones alone, as of generated lists."""
    rows = []
    for _ in range(2):
        first = draw(st.integers(0, _LENGTH))
        last = draw(st.integers(first, _LENGTH))
        holes = draw(st.lists(st.booleans(), min_size=_LENGTH, max_size=_LENGTH))
        rows.append([first <= t < last and not holes[t] for t in range(_LENGTH)])
    return torch.tensor(rows)


@given(trained=trained_columns(), n_steps=st.integers(1, _STEPS))
@settings(max_examples=40, deadline=None)
def test_a_window_leaves_out_nothing_that_is_trained(trained: Tensor, n_steps: int) -> None:
    """Predictions and gradients of the columns that are trained are those of steps that are run everywhere."""
    network, embeddings, features, slots = draft_and_inputs()
    network.layer.post_attention_layernorm = torch.nn.Identity()  # transformers' norm computes in float32
    with torch.no_grad():  # and without it numbers would grow from step to step
        torch._foreach_mul_(list(network.parameters()), 0.3)
    window = Window.around(trained, n_steps)
    rows = rows_of(trained)
    found: dict[str, list[Tensor]] = {"everywhere": [], "window": []}
    for name, where in (("everywhere", None), ("window", window)):
        network.zero_grad()
        total = torch.zeros((), dtype=torch.float64)
        for step, predicted in enumerate(unroll(network, embeddings, features, slots, n_steps, where)):
            places = window.places(rows) if where and step else rows
            valid = rows % _LENGTH >= step
            ours = picked(predicted, places)[valid]
            found[name].append(ours.detach())
            total = total + ours.pow(3).sum()
        total.backward()
        found[name] += [w.grad.clone() for w in network.parameters() if w.grad is not None]
    for one, other in zip(found["window"], found["everywhere"], strict=True):
        largest = float(other.abs().max()) if other.numel() else 0.0
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9 * largest)


def test_a_window_is_as_narrow_as_the_trained_columns_allow() -> None:
    trained = torch.zeros(3, 20, dtype=torch.bool)
    trained[0, 12:16] = trained[1, 3:5] = True  # none in the third row
    window = Window.around(trained, 4)
    assert (window.width, window.length) == (4 + 2, 20)
    assert window.columns.tolist() == [list(range(10, 16)), list(range(6)), list(range(6))]
    assert window.places(torch.tensor([12, 15, 20 + 3, 40])).tolist() == [2, 5, 6 + 3, 12]
    assert Window.around(trained, 1).width == 4
    assert Window.around(trained, 18).columns.tolist() == [list(range(20))]


def test_padding_on_the_right_changes_nothing() -> None:
    network, embeddings, features, slots = draft_and_inputs()
    n = 5
    with torch.no_grad():
        alone = list(unroll(network, embeddings[:1, :n], features[:1, :n], slots[:1, :n], 3))
        padded = list(unroll(network, embeddings, features, slots, 3))
    for one, other in zip(alone, padded, strict=True):
        torch.testing.assert_close(one[0], other[0, :n], rtol=0, atol=1e-12)


def test_predictions_are_fed_back_without_gradient() -> None:
    network, embeddings, features, slots = draft_and_inputs()
    steps = list(unroll(network, embeddings, features, slots, 3))
    for predicted in steps:
        predicted.retain_grad()
    steps[-1].sum().backward()
    assert steps[0].grad is None
    assert steps[1].grad is None


def test_keys_of_earlier_steps_do_carry_gradient() -> None:
    network, embeddings, features, slots = draft_and_inputs()
    features.requires_grad_()
    last = list(unroll(network, embeddings, features, slots, 3))[-1]
    (gradient,) = torch.autograd.grad(last[0, 6].sum(), features)
    # The target's features up to 6 - 2 are read directly; all others came in as detached predictions.
    assert (gradient[0, :5] != 0).all()
    assert (gradient[0, 5:] == 0).all()
    assert (gradient[1] == 0).all()
