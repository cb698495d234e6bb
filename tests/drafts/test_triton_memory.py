"""What a kernel remembers of a round, against plain PyTorch."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from padrec.decoding import Observation
from padrec.drafts.draft_memory import DraftMemory
from padrec.drafts.draft_operations import DraftOperations
from padrec.drafts.triton_draft_operations import TritonDraftOperations
from tests.kernel_device import DEVICE, DTYPES


@settings(max_examples=15)
@given(
    batch=st.integers(1, 3),
    n_nodes=st.integers(1, 64),
    n_kept=st.integers(1, 5),
    n_units=st.sampled_from([16, 32, 100]),
    dtype=st.sampled_from([*DTYPES, torch.float64]),
    seed=st.integers(0, 1000),
)
def test_what_is_remembered_of_rounds(
    batch: int, n_nodes: int, n_kept: int, n_units: int, dtype: torch.dtype, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(batch, n_nodes, n_units, generator=generator).to(dtype)
    memory, there = (
        DraftMemory.empty(batch, n_kept, n_units, dtype, torch.device(device)) for device in ("cpu", DEVICE)
    )
    plain, kernels = DraftOperations(), TritonDraftOperations()
    for _ in range(2):
        path, tokens, slots = (torch.randint(n_nodes, (batch, n_kept), generator=generator) for _ in range(3))
        output = torch.randn(batch, n_kept, n_units, generator=generator).to(dtype)
        count = torch.randint(n_kept + 1, (batch,), generator=generator)  # 0 in rows that have ended
        plain.remember(Observation(features, path, tokens, slots, count), memory)
        moved = Observation(*(x.to(DEVICE) for x in (features, path, tokens, slots, count)))
        kernels.remember(moved, there)
        plain.move_on(output, count, memory)
        kernels.move_on(output.to(DEVICE), count.to(DEVICE), there)
        for name in ("features", "tokens", "slots", "count"):
            assert torch.equal(getattr(there.kept, name).cpu(), getattr(memory.kept, name)), name
        assert torch.equal(there.root.cpu(), memory.root)
        assert torch.equal(there.lengths.cpu(), memory.lengths)
