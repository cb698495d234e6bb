"""Which devices run kernels, and which launch them while the one before still runs."""

from importlib.util import find_spec
from typing import TypedDict

import torch


class LaunchOptions(TypedDict):
    """What a kernel is launched with, as it and as the launcher know it."""

    EARLY: bool
    launch_pdl: bool


def has_kernels(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether Triton kernels compute on a device; they know no float64. Triton comes with PyTorch's GPU builds only."""
    return device.type == "cuda" and dtype != torch.float64 and find_spec("triton") is not None


def launches_early(device: torch.device) -> bool:
    """Whether a GPU can launch a kernel before the one ahead of it has ended: from Hopper (9.0) on."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0)


def launch_options(early: bool) -> LaunchOptions:
    """For kernels that wait for their input by themselves, see `padrec/decoding/device/kernels/early_launch.py`."""
    return {"EARLY": early, "launch_pdl": early}
