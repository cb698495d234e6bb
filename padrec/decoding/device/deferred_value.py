"""Values of device tensors that the host reads later."""

from collections.abc import Callable

import torch
from torch import Tensor


def deferred_value(tensor: Tensor) -> Callable[[], int]:
    """Note the value of an integer tensor `[]` at this point of the device's work, without synchronising.

    The function returned gives the value; it waits for that point, not for work that was queued after it.
    """
    if tensor.device.type != "cuda":
        value = int(tensor)
        return lambda: value
    copied = torch.empty_like(tensor, device="cpu", pin_memory=True)
    copied.copy_(tensor, non_blocking=True)
    done = torch.cuda.Event()
    done.record(torch.cuda.current_stream(tensor.device))

    def read() -> int:
        done.synchronize()
        return int(copied)

    return read
