"""Compilation of the small steps between passes, whose many kernels cost more to launch than to compute."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
T = TypeVar("T")

# Each tree, batch size and constraint has its own shapes, each compiled once.
_SHAPES = 256
# Independent small kernels become one launch. No padding to sizes that matrix units prefer: it costs a kernel, and its
# benefit would be timed while compiling, possibly beside other work.
_OPTIONS: dict[str, Any] = {"combo_kernels": True, "shape_padding": False}


def compiled(function: Callable[P, T]) -> Callable[P, T]:
    """Compile a function once per input shape if its first argument is a tensor on a GPU.

    Within another compiled function it becomes part of that one. On the CPU the function runs as it is: compiling would
    take longer than the evaluation that it speeds up.
    """
    fused = torch.compile(function, dynamic=False, fullgraph=True, options=_OPTIONS)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        first = args[0]
        if torch.compiler.is_compiling() or not (isinstance(first, Tensor) and first.is_cuda):
            return function(*args, **kwargs)
        with torch._dynamo.config.patch(recompile_limit=_SHAPES, accumulated_recompile_limit=8 * _SHAPES):
            return fused(*args, **kwargs)

    return call
