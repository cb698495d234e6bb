"""Which devices run Triton kernels, and which launch a kernel before the previous one has ended."""

from importlib.util import find_spec

import torch


def has_kernels(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether Triton kernels run on a device; none for float64. Only PyTorch's GPU builds bring Triton along."""
    return device.type == "cuda" and dtype != torch.float64 and find_spec("triton") is not None


def launches_early(device: torch.device) -> bool:
    """Whether a GPU can launch a kernel before the previous one has ended: from Hopper (9.0) on."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0)


def launch_options(early: bool) -> dict[str, bool]:
    """Options for kernels that wait for their own input, see `padrec/decoding/device/kernels/early_launch.py`."""
    return {"EARLY": early, "launch_pdl": early}
