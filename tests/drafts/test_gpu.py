"""What drafts do on a GPU alone: fused kernels against plain PyTorch."""

import copy
from typing import Any

import pytest
import torch

from padrec.catalog import SemanticIDVocabulary
from padrec.decoding import Observation
from padrec.decoding.layers.layer_operations import LayerOperations
from padrec.drafts import FoldedFusion
from padrec.drafts.draft_memory import DraftMemory
from tests.drafts.reference_drafting import random_network
from tests.stubs import tiny_target

_DEVICE = torch.device("cuda")
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
_VOCABULARY = SemanticIDVocabulary((5, 6, 7))
_ROWS = 9


def plain_and_fused(dtype: torch.dtype, steps: bool) -> tuple[FoldedFusion, FoldedFusion]:
    """The same fusion in float64 on the CPU and in this precision on the GPU."""
    triton_operations = pytest.importorskip("padrec.decoding.layers.triton_operations")
    operations: LayerOperations = triton_operations.TritonOperations()
    token_slots = _VOCABULARY.token_slots
    assert token_slots is not None
    model = tiny_target(_VOCABULARY, dtype=dtype)
    network = random_network(model, _VOCABULARY.n_slot_states, step_embeddings=steps)
    there: Any = copy.deepcopy(model)
    there.to(_DEVICE)
    fused = FoldedFusion(
        copy.deepcopy(network).to(_DEVICE),
        there.get_input_embeddings(),
        there.get_output_embeddings(),
        token_slots.to(_DEVICE),
        operations,
    )
    model, network = model.double(), network.double()
    return FoldedFusion(network, model.get_input_embeddings(), model.get_output_embeddings(), token_slots), fused


@pytest.mark.parametrize("steps", [True, False], ids=["with steps", "without"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_the_fusion_of_nodes_and_what_they_see(dtype: torch.dtype, steps: bool) -> None:
    plain, fused = plain_and_fused(dtype, steps)
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 4, 32, generator=generator, dtype=torch.float64).to(dtype)
    tolerance = 3e-2 if dtype == torch.bfloat16 else 1e-4
    above = torch.rand(2, 4, _ROWS, generator=generator) < 0.5
    parents = torch.randint(4, (2, 3), generator=generator)
    tokens = torch.randint(_VOCABULARY.size, (2, 4), generator=generator)
    (logits, read), (expected_logits, expected_read) = fused.look(features.to(_DEVICE)), plain.look(features.double())
    for found, expected in ((logits, expected_logits), (read, expected_read)):
        torch.testing.assert_close(found.cpu().double(), expected, rtol=tolerance, atol=tolerance)
    for step in range(3):
        hidden = fused(tokens.to(_DEVICE), read, tokens, step)
        torch.testing.assert_close(
            hidden.cpu().double(), plain(tokens, expected_read, tokens, step), rtol=tolerance, atol=2 * tolerance
        )
        for mask in (None, above):
            given = (tokens[:, :3], parents, mask, torch.arange(_ROWS))
            at, of, seen, rows = (None if x is None else x.to(_DEVICE) for x in given)
            assert at is not None
            assert of is not None
            assert rows is not None
            hidden, sees = fused.extend(at, read, at, step, of, seen, rows, 5)
            expected_hidden, expected_sees = plain.extend(
                tokens[:, :3], expected_read, tokens, step, parents, mask, torch.arange(_ROWS), 5
            )
            assert torch.equal(sees.cpu(), expected_sees)
            torch.testing.assert_close(hidden.cpu().double(), expected_hidden, rtol=tolerance, atol=2 * tolerance)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("n_nodes", "n_kept", "n_units"), [(1, 1, 16), (9, 4, 32), (64, 13, 100)])
def test_what_is_remembered_of_a_round(n_nodes: int, n_kept: int, n_units: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(3, n_nodes, n_units, generator=generator).to(dtype)
    path, tokens, slots = (torch.randint(n_nodes, (3, n_kept), generator=generator) for _ in range(3))
    output, count = torch.randn(3, n_kept, n_units, generator=generator).to(dtype), torch.tensor([n_kept, 0, 1])
    memory, there = DraftMemory.empty(3, n_kept, features), DraftMemory.empty(3, n_kept, features.to(_DEVICE))
    for _ in range(2):
        memory.keep(Observation(features, path, tokens, slots, count))
        there.keep(Observation(*(x.to(_DEVICE) for x in (features, path, tokens, slots, count))))
        memory.move_on(output, count)
        there.move_on(output.to(_DEVICE), count.to(_DEVICE))
        for name in ("features", "tokens", "slots", "count"):
            assert torch.equal(getattr(there.kept, name).cpu(), getattr(memory.kept, name)), name
        assert torch.equal(there.root.cpu(), memory.root)
        assert torch.equal(there.lengths.cpu(), memory.lengths)
        output = output + 1
