"""A depth's inputs and its attention in one launch, against the kernels that compute them one after the other."""

from typing import Any

import pytest
import torch
from torch import Tensor

from padrec.decoding.layers.layer_operations import Heads, LayerAttention, LayerOperations, RMSNorm
from padrec.decoding.layers.placement import Placement
from padrec.drafts.draft_operations import DraftOperations, FirstAttention, StepTerms, TreeLevel
from padrec.drafts.triton_draft_operations import TritonDraftOperations
from tests.kernel_device import DEVICE, DTYPES

_CPU = torch.device("cpu")
_UNITS, _SIZE, _KEYS, _COLUMNS, _ROWS, _TOKENS = 20, 32, 2, 70, 9, 11
_TOLERANCE = {torch.bfloat16: 3e-2, torch.float16: 4e-3, torch.float32: 1e-5}


@pytest.mark.parametrize("gated", [False, True], ids=["ungated", "gated"])
@pytest.mark.parametrize("slotted", [False, True], ids=["own codes", "shared codes"])
@pytest.mark.parametrize("normed", [False, True], ids=["no head norms", "head norms"])
@pytest.mark.parametrize("group", [1, 3])
@pytest.mark.parametrize("depth", [0, 2])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_depth_attends_to_its_past_its_ancestors_and_itself(
    dtype: torch.dtype, depth: int, group: int, normed: bool, slotted: bool, gated: bool
) -> None:
    numbers = _Numbers(dtype)
    heads = Heads(group * _KEYS, _KEYS, _SIZE, _SIZE**-0.5)
    n_inputs = _UNITS + (heads.queries + 2 * heads.keys) * _SIZE
    terms = StepTerms(
        numbers(_TOKENS, n_inputs + gated),
        _UNITS,
        n_inputs,
        numbers(5, n_inputs) if slotted else None,
        numbers(n_inputs) if gated else None,
    )
    n_before, n_nodes, batch = 4 if depth else 1, 3, 2
    mapped = numbers(batch, n_before, n_inputs + gated + 3)[..., : n_inputs + gated].float()
    parents, first_node = numbers.index(n_before, batch, n_nodes), 5 if depth else 0
    above = numbers.index(2, batch, n_before, _ROWS).bool() & (torch.arange(_ROWS) < first_node) if depth else None
    level = TreeLevel(parents, above, torch.arange(_ROWS), first_node)
    tokens, slots = numbers.index(_TOKENS, batch, n_nodes), numbers.index(5, batch, n_nodes)
    norms = (RMSNorm(numbers(_SIZE), 1e-6), RMSNorm(numbers(_SIZE), 1e-6)) if normed else None
    cache = numbers(batch, _KEYS, _COLUMNS, _SIZE), numbers(batch, _KEYS, _COLUMNS, _SIZE)
    rotary = numbers(_COLUMNS, _SIZE).float(), numbers(_COLUMNS, _SIZE).float()
    first = FirstAttention(
        LayerAttention(heads, *cache, rotary, norms), torch.tensor([40, 3]), torch.tensor([depth, depth + 1])
    )
    there = _copied(first, DEVICE, dtype)
    above_there = None if above is None else above.to(DEVICE)
    level_there = TreeLevel(parents.to(DEVICE), above_there, level.nodes.to(DEVICE), first_node)
    read, visible = TritonDraftOperations().fuse(
        tokens.to(DEVICE), mapped.to(DEVICE), _moved(terms, DEVICE, dtype), slots.to(DEVICE), level_there, there
    )
    # The same numbers in float32, so that the rounding of the reference does not count.
    exact = _copied(first, _CPU, torch.float32)
    plain, sees = DraftOperations().fuse(tokens, mapped, _moved(terms, _CPU, torch.float32), slots, level)
    assert plain.qkv is not None
    placement = Placement(first.lengths, first.places[:, None].expand(tokens.shape), level.first, sees)
    compute = LayerOperations()
    queries = compute.rotate_and_store(plain.qkv.flatten(0, 1), exact.layer, placement)
    seen = compute.attention(queries, exact.layer, placement)
    assert read.seen is not None
    assert visible is not None
    assert sees is not None
    assert torch.equal(visible.cpu(), sees)
    caches = (there.layer.keys, exact.layer.keys), (there.layer.values, exact.layer.values)
    for found, expected in ((read.hidden, plain.hidden), (read.seen, seen), *caches):
        assert found.dtype == dtype
        torch.testing.assert_close(found.cpu().float(), expected, rtol=_TOLERANCE[dtype], atol=2 * _TOLERANCE[dtype])


def test_a_node_that_is_not_finite_reaches_its_descendants_alone() -> None:
    numbers, heads = _Numbers(torch.float32), Heads(2, 2, _SIZE, _SIZE**-0.5)
    n_inputs = _UNITS + 6 * _SIZE
    terms = StepTerms(numbers(_TOKENS, n_inputs), _UNITS, n_inputs)
    mapped = numbers(1, 2, n_inputs)
    mapped[0, 1] = torch.nan
    cache = [torch.zeros(1, 2, _COLUMNS, _SIZE) for _ in range(2)]
    layer = LayerAttention(heads, cache[0], cache[1], (torch.ones(_COLUMNS, _SIZE), torch.zeros(_COLUMNS, _SIZE)))
    first = _copied(FirstAttention(layer, torch.tensor([4]), torch.tensor([1])), DEVICE, torch.float32)
    tokens, parents = torch.tensor([[1, 2]], device=DEVICE), torch.tensor([[0, 1]], device=DEVICE)
    level = TreeLevel(parents, None, torch.arange(_ROWS, device=DEVICE), 0)
    known = _moved(terms, DEVICE, torch.float32)
    read, _ = TritonDraftOperations().fuse(tokens, mapped.to(DEVICE), known, tokens, level, first)
    assert read.seen is not None
    assert read.seen[0].isfinite().all()
    assert read.seen[1].isnan().all()
    assert first.layer.values.isfinite().all()


class _Numbers:
    """Random numbers in a precision, and random indices."""

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype, self._generator = dtype, torch.Generator().manual_seed(0)

    def __call__(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self._generator).to(self._dtype)

    def index(self, end: int, *shape: int) -> Tensor:
        return torch.randint(end, shape, generator=self._generator)


def _moved(terms: StepTerms, device: torch.device, dtype: torch.dtype) -> StepTerms:
    moved: Any = {name: x.to(device, dtype) for name, x in terms._asdict().items() if isinstance(x, Tensor)}
    return terms._replace(**moved)


def _copied(first: FirstAttention, device: torch.device, dtype: torch.dtype) -> FirstAttention:
    """A copy, with a cache of its own."""
    layer = first.layer
    keys, values = (x.clone().to(device, dtype) for x in (layer.keys, layer.values))
    rotary: Any = tuple(x.to(device) for x in layer.rotary)
    norms: Any = layer.norms and tuple(RMSNorm(norm.weight.to(device, dtype), norm.eps) for norm in layer.norms)
    return FirstAttention(
        LayerAttention(layer.heads, keys, values, rotary, norms), first.lengths.to(device), first.places.to(device)
    )
