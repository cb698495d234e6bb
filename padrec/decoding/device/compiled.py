"""Small steps between the passes, compiled where launching their many kernels would cost more than computing them."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
T = TypeVar("T")

# Every tree, batch size and constraint has shapes of its own, each of which is compiled once.
_SHAPES = 256


def compiled(function: Callable[P, T]) -> Callable[P, T]:
    """Compile a function for every shape that its first argument, a tensor on a GPU, comes with.

    On the CPU the function runs as it is: compiling takes longer there than an evaluation that it would speed up.
    """
    # Few rows are not padded to what matrix units like: that costs a kernel, and whether it is faster would be timed
    # while compiling, by chance beside other work.
    fused = torch.compile(function, dynamic=False, fullgraph=True, options={"shape_padding": False})

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        first = args[0]
        if not (isinstance(first, Tensor) and first.is_cuda):
            return function(*args, **kwargs)
        with torch._dynamo.config.patch(recompile_limit=_SHAPES, accumulated_recompile_limit=8 * _SHAPES):
            return fused(*args, **kwargs)

    return call
