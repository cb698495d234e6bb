"""Which kernels are launched while the one before them still runs."""

from typing import TypedDict

import torch


class LaunchOptions(TypedDict):
    """What a kernel is launched with, as it and as the launcher know it."""

    EARLY: bool
    launch_pdl: bool


def launches_early(device: torch.device) -> bool:
    """Whether a device can launch a kernel before the one ahead of it has ended: GPUs from Hopper (9.0) on."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0)


def launch_options(early: bool) -> LaunchOptions:
    """For kernels that wait for their input by themselves, see `padrec/decoding/device/kernels/early_launch.py`."""
    return {"EARLY": early, "launch_pdl": early}
