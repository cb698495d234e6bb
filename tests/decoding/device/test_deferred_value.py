"""Values of device tensors that the host reads later."""

import pytest
import torch

from padrec.decoding.device.deferred_value import deferred_value
from tests.kernel_device import CPU_AND_GPU


@pytest.mark.parametrize("device", CPU_AND_GPU, ids=str)
def test_a_deferred_value_is_that_of_its_own_moment(device: torch.device) -> None:
    count = torch.zeros((), dtype=torch.long, device=device)
    read = []
    for _ in range(3):
        count += 1
        read.append(deferred_value(count))
    assert [value() for value in read] == [1, 2, 3]
