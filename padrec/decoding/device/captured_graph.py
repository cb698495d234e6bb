"""CUDA graph capture and replay of work of fixed shape."""

import gc
from collections.abc import Callable

import torch

# After this many runs a function has compiled its kernels and allocated its buffers.
_WARM_UPS = 2


class CapturedGraph:
    """A function that is called repeatedly on the same tensors.

    On a GPU its kernels are captured once as a CUDA graph, and each call replays them with a single launch. The
    function must therefore use tensors that are never reallocated, must not synchronise with the host, and is run
    several times before the capture. On the CPU it is simply called.
    """

    def __init__(self, function: Callable[[], None], device: torch.device) -> None:
        # Keeps the function's tensors alive: a replay uses their memory without holding them.
        self._function = function
        self._replay = _capture(function, device) if device.type == "cuda" else function

    def __call__(self) -> None:
        """Do the work."""
        self._replay()


def _capture(function: Callable[[], None], device: torch.device) -> Callable[[], None]:
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(_WARM_UPS):
            function()
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    # Collecting garbage may free device memory, which breaks a capture.
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        with torch.cuda.graph(graph):
            function()
    finally:
        if was_enabled:
            gc.enable()
    return graph.replay


def captures_graphs(device: torch.device) -> bool:
    """Whether work is captured on a device: its shapes must not depend on data, nor may it read values on the host."""
    return device.type == "cuda"
