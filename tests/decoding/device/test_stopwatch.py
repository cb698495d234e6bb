"""The clock of decoders."""

import time

import pytest
import torch

from padrec.decoding import Stopwatch
from tests.kernel_device import CPU_AND_GPU


@pytest.mark.parametrize("device", CPU_AND_GPU, ids=str)
def test_a_mark_lies_between_two_laps(device: torch.device) -> None:
    watch = Stopwatch(device)
    time.sleep(0.01)
    watch.lap()
    square = torch.randn(64, 64, device=device)
    for _ in range(10):
        square = square @ square
    marked = watch.mark()
    time.sleep(0.02)
    seconds = watch.lap()
    assert 0 < marked() <= seconds
    assert marked() == marked(), "it stays where it was set"
