"""Passes that are recorded once and replayed, which only a GPU does."""

from collections.abc import Callable

import torch

from padrec.decoding import CapturedGraph
from tests.kernel_device import DEVICE, needs_gpu


@needs_gpu
def test_a_recording_keeps_its_tensors() -> None:
    counts = torch.zeros(1000, device=DEVICE)

    def copying() -> Callable[[], None]:
        ones = torch.ones(1000, device=DEVICE)

        def copy() -> None:
            counts.copy_(ones)

        return copy

    recording = CapturedGraph(copying(), DEVICE)
    # Takes the memory of whatever has been given back.
    others = [torch.full((1000,), 7.0, device=DEVICE) for _ in range(100)]
    counts.zero_()
    recording()
    assert counts.sum() == 1000
    assert len(others) == 100
