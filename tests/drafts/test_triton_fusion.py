"""The folded fusion by a kernel, against plain PyTorch."""

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from padrec.catalog import SemanticIDVocabulary
from padrec.decoding.layers.layer_operations import LayerOperations
from padrec.decoding.layers.triton_operations import TritonOperations
from padrec.drafts import FoldedFusion, PositionAware
from padrec.drafts.draft_operations import DraftOperations, LayerInputs, StepTerms, TreeLevel
from padrec.drafts.triton_draft_operations import TritonDraftOperations
from tests.drafts.reference_drafting import random_network
from tests.drafts.test_position_aware import FORMS
from tests.kernel_device import DEVICE, DTYPES, ON_GPU, needs_gpu
from tests.stubs import tiny_target

_VOCABULARY = SemanticIDVocabulary((5, 6, 7))
_ROWS = 9
_TOLERANCE = {torch.bfloat16: 3e-2, torch.float16: 4e-3, torch.float32: 1e-4 if ON_GPU else 1e-5}


def fused_exactly(
    tokens: Tensor, mapped: Tensor, parents: Tensor | None, terms: StepTerms, slots: Tensor
) -> tuple[Tensor, Tensor]:
    """The definition in float64, see `FoldedFusion`."""
    before = mapped if parents is None else torch.stack([row[at] for row, at in zip(mapped, parents, strict=True)])
    total = before.double() + terms.table[tokens].double()
    fused, scores = total[..., : terms.n_inputs], total[..., terms.n_inputs :]
    if terms.step is not None:
        fused = fused + scores.sigmoid() * terms.step.double()
    if terms.slots is not None:
        fused = fused + terms.slots.double()[slots]
    return fused[..., : terms.n_units], fused[..., terms.n_units :]


@settings(max_examples=15)
@given(
    batch=st.integers(1, 3),
    n_before=st.integers(1, 4),
    n_nodes=st.integers(1, 4),
    n_units=st.sampled_from([16, 20, 32]),
    n_projected=st.sampled_from([0, 8, 28]),
    gate=st.sampled_from(["none", "scalar", "vector"]),
    slotted=st.booleans(),
    in_tree=st.booleans(),
    sees=st.booleans(),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 1000),
)
def test_tokens_are_fused_with_the_features_before_them(
    batch: int,
    n_before: int,
    n_nodes: int,
    n_units: int,
    n_projected: int,
    gate: str,
    slotted: bool,
    in_tree: bool,
    sees: bool,
    dtype: torch.dtype,
    seed: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    n_nodes = n_nodes if in_tree else n_before

    def numbers(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(dtype)

    n_inputs = n_units + n_projected
    n_scores = {"none": 0, "scalar": 1, "vector": n_inputs}[gate]
    # A part of a wider product, as head and fusion are.
    table = numbers(11, n_inputs + n_scores)
    mapped = numbers(batch, n_before, n_inputs + n_scores + 3)[..., : n_inputs + n_scores]
    step = numbers(n_inputs) if n_scores and in_tree else None
    terms = StepTerms(table, n_units, n_inputs, numbers(5, n_inputs) if slotted else None, step)
    tokens = torch.randint(11, (batch, n_nodes), generator=generator)
    slots = torch.randint(5, (batch, n_nodes), generator=generator)
    parents = torch.randint(n_before, (batch, n_nodes), generator=generator)
    there: Any = {name: x.to(DEVICE) for name, x in terms._asdict().items() if isinstance(x, Tensor)}
    known = terms._replace(**there)
    kernels = TritonDraftOperations()
    if not in_tree:
        kept = mapped[..., :n_inputs]
        found, _ = kernels.fuse(tokens.to(DEVICE), kept.to(DEVICE), known, slots.to(DEVICE))
        assert_inputs(found, fused_exactly(tokens, mapped, None, terms, slots))
        return
    above = torch.rand(batch, n_before, _ROWS, generator=generator) < 0.5 if sees else None
    first = int(torch.randint(_ROWS - n_nodes + 1, (), generator=generator))
    level = TreeLevel(parents, above, torch.arange(_ROWS), first)
    found, seen = kernels.fuse(tokens.to(DEVICE), mapped.to(DEVICE), known, slots.to(DEVICE), on_device(level))
    assert_inputs(found, fused_exactly(tokens, mapped, parents, terms, slots))
    assert seen is not None
    for row in range(batch):
        for node in range(n_nodes):
            visible = torch.arange(_ROWS) == first + node
            if above is not None:
                visible = visible | above[row, parents[row, node]]
            assert torch.equal(seen[row, node].cpu(), visible)


def on_device(level: TreeLevel) -> TreeLevel:
    above = None if level.above is None else level.above.to(DEVICE)
    return TreeLevel(level.parents.to(DEVICE), above, level.nodes.to(DEVICE), level.first)


def assert_inputs(found: LayerInputs, expected: tuple[Tensor, Tensor]) -> None:
    assert_close(found.hidden, expected[0])
    assert (found.qkv is None) == (expected[1].shape[-1] == 0)
    if found.qkv is not None:
        assert_close(found.qkv, expected[1])


def assert_close(found: Tensor, expected: Tensor) -> None:
    tolerance = _TOLERANCE[found.dtype]
    torch.testing.assert_close(found.cpu().double(), expected, rtol=tolerance, atol=2 * tolerance)


def plain_and_fused(dtype: torch.dtype, form: PositionAware) -> tuple[FoldedFusion, FoldedFusion]:
    """The same fusion in float64 on the CPU and in this precision on the GPU."""
    model = tiny_target(_VOCABULARY, dtype=dtype)
    network = random_network(model, _VOCABULARY.n_slot_states, form)
    there: Any = copy.deepcopy(model)
    there.to(DEVICE)
    fused = FoldedFusion(
        copy.deepcopy(network).to(DEVICE), there, _VOCABULARY, TritonOperations(), TritonDraftOperations()
    )
    plain = FoldedFusion(network.double(), model.double(), _VOCABULARY, LayerOperations(), DraftOperations())
    return plain, fused


@needs_gpu
@pytest.mark.parametrize("form", [*FORMS[:3], *FORMS[5:9]], ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_on_a_gpu_fusion_is_that_of_plain_pytorch(dtype: torch.dtype, form: PositionAware) -> None:
    plain, fused = plain_and_fused(dtype, form)
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 4, 32, generator=generator, dtype=torch.float64).to(dtype)
    tolerance = 3e-2 if dtype == torch.bfloat16 else 1e-4
    above = torch.rand(2, 4, _ROWS, generator=generator) < 0.5
    parents = torch.randint(4, (2, 3), generator=generator)
    tokens = torch.randint(_VOCABULARY.size, (2, 4), generator=generator)
    (logits, mapped), (expected_logits, expected_mapped) = (
        fused.look(features.to(DEVICE)),
        plain.look(features.double()),
    )
    found = fused.read(features.to(DEVICE), tokens.to(DEVICE), tokens).hidden
    expected = plain.read(features.double(), tokens, tokens).hidden
    for one, other in ((logits, expected_logits), (mapped, expected_mapped), (found, expected)):
        torch.testing.assert_close(one.cpu().double(), other, rtol=tolerance, atol=2 * tolerance)
    nodes = tokens[:, :3]
    for step in (1, 2):
        for mask in (None, above):
            level = TreeLevel(parents, mask, torch.arange(_ROWS), 5)
            read, sees = fused.extend(nodes.to(DEVICE), mapped, nodes, step, on_device(level))
            expected_read, expected_sees = plain.extend(nodes, expected_mapped, nodes, step, level)
            assert sees is not None
            assert expected_sees is not None
            assert torch.equal(sees.cpu(), expected_sees)
            torch.testing.assert_close(
                read.hidden.cpu().double(), expected_read.hidden, rtol=tolerance, atol=2 * tolerance
            )
