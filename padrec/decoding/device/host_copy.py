"""Copies of device tensors on the host."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


class HostCopy:
    """The values of several tensors, copied to the host at once: a copy takes longer to begin than to move its bytes.

    Args:
        tensors: contiguous, of one device, with at least one dimension; their values change in place.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        # Large elements first, so that the bytes of each tensor begin at a multiple of its elements' size.
        order = sorted(range(len(tensors)), key=lambda at: -tensors[at].element_size())
        self._bytes = [tensors[at].view(-1).view(torch.uint8) for at in order]
        self._packed = torch.cat(self._bytes)
        self._host = torch.empty_like(self._packed, device="cpu", pin_memory=self._packed.is_cuda)
        # As fields of a record, since a field is an array after one operation.
        self._fields = [str(at) for at in range(len(tensors))]
        self._record = np.dtype(
            [
                (self._fields[at], torch.empty(0, dtype=tensors[at].dtype).numpy().dtype, tensors[at].shape)
                for at in order
            ]
        )

    def begin(self) -> None:
        """Copy the values that the tensors have at this point of the device's work, without waiting for it."""
        torch.cat(self._bytes, out=self._packed)
        self._host.copy_(self._packed, non_blocking=True)

    def values(self) -> list[Tensor]:
        """New tensors on the CPU with the values; valid once the host has waited for the device after `begin`."""
        record = self._host.numpy().copy().view(self._record)[0]
        return [torch.from_numpy(record[field]) for field in self._fields]
