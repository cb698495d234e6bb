"""Work of fixed shape, launched as a whole."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

# What a function does once only, such as compiling kernels and allocating buffers, is behind it after so many runs.
_WARM_UPS = 2


class CapturedGraph:
    """A function that is called again and again on the same tensors.

    On a GPU its kernels are recorded once, as a CUDA graph, and every call replays them with a single launch. The
    function therefore reads from and writes to tensors that stay where they are, never asks for a value on the host,
    and may be run at any time without harm, as it is before it is recorded. On the CPU a call is a call.

    Args:
        function: the work.
        device: where its tensors are.
    """

    def __init__(self, function: Callable[[], None], device: torch.device) -> None:
        # Kept, since a replay reads and writes the function's tensors without holding them.
        self._function = function
        self._replay = _record(function, device) if device.type == "cuda" else function

    def __call__(self) -> None:
        """Do the work once."""
        self._replay()


def _record(function: Callable[[], None], device: torch.device) -> Callable[[], None]:
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(_WARM_UPS):
            function()
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph), _without_garbage_collection():
        function()
    return graph.replay


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """What is collected meanwhile may free memory of the device, by which the recording that is under way is lost."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def captures_graphs(device: torch.device) -> bool:
    """Whether work is captured on a device: its shapes must not depend on data, nor may it read values on the host."""
    return device.type == "cuda"
