"""Sequential heads by a kernel, against plain PyTorch."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from padrec.drafts.draft_operations import DraftOperations, HeadStates, HeadTerms
from padrec.drafts.triton_draft_operations import TritonDraftOperations
from tests.kernel_device import DEVICE, DTYPES

_TOLERANCE = {torch.bfloat16: 3e-2, torch.float16: 4e-3, torch.float32: 1e-5}
_COLUMNS = 9


@settings(max_examples=25)
@given(
    batch=st.integers(1, 3),
    n_passes=st.integers(1, 4),
    n_before=st.integers(1, 4),
    n_nodes=st.sampled_from([1, 4, 18]),
    n_out=st.sampled_from([3, 16, 70, 2200]),
    rank=st.sampled_from([5, 16, 32]),
    right_after=st.booleans(),
    sees=st.booleans(),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 1000),
)
def test_heads_follow_nodes_and_carry_them_to_the_next_pass_as_in_plain_pytorch(
    batch: int,
    n_passes: int,
    n_before: int,
    n_nodes: int,
    n_out: int,
    rank: int,
    right_after: bool,
    sees: bool,
    dtype: torch.dtype,
    seed: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)

    def numbers(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    def index(end: int, *shape: int) -> Tensor:
        return torch.randint(end, shape, generator=generator)

    n_passes = n_before if right_after else n_passes
    # Parts of a wider product.
    base, sums = numbers(batch, n_passes, n_out + 3)[..., :n_out], numbers(batch, n_before, rank + 3)[..., 3:]
    states = HeadStates(base, sums, None if right_after else index(n_passes, batch, n_before))
    heads = HeadTerms(numbers(3, 11, rank).to(dtype), numbers(3, n_out, rank).to(dtype))
    tokens, parents = index(11, batch, n_nodes), index(n_before, batch, n_nodes)
    slots = index(4, batch)
    above = index(2, batch, n_passes, _COLUMNS).bool() if sees else None

    def computed(operations: DraftOperations, device: torch.device, exact: torch.dtype) -> tuple[Tensor | None, ...]:
        there = HeadStates(*(None if value is None else value.to(device) for value in states))  # type: ignore[arg-type]
        known = HeadTerms(heads.table.to(device, exact), heads.output.to(device, exact))
        seen = None if above is None else above.to(device)
        logits, after = operations.follow(tokens.to(device), parents.to(device), slots.to(device), there, known)
        return logits, *after, *operations.carry(parents.to(device), there, known.output[1], there.base, seen)

    found = computed(TritonDraftOperations(), DEVICE, dtype)
    # The same numbers in float32, so that the rounding of the reference does not count.
    expected = computed(DraftOperations(), torch.device("cpu"), torch.float32)
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            exact = other.dtype in (torch.bool, torch.int64)
            tolerance = 0.0 if exact else _TOLERANCE[dtype]
            torch.testing.assert_close(one.cpu(), other, rtol=tolerance, atol=4 * tolerance)


def test_first_codes_wait_for_their_pass() -> None:
    sums, heads = torch.ones(2, 1, 4), HeadTerms(torch.ones(1, 3, 4), torch.zeros(1, 2, 4))
    tokens = parents = torch.zeros(2, 1, dtype=torch.long)
    states = HeadStates(torch.zeros(2, 1, 2), sums)
    _, after = DraftOperations().follow(tokens, parents, torch.tensor([0, 1]), states, heads)
    assert after.sums[:, 0, 0].tolist() == [1, 2]
