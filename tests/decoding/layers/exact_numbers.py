"""Numbers for the kernels of layers, and the same in float64, which makes plain PyTorch's results as good as exact."""

from dataclasses import replace

import torch
from torch import Tensor

from padrec.decoding.layers.layer_operations import LayerAttention, LayerOperations, RMSNorm
from tests.kernel_device import DEVICE, ON_GPU

PLAIN = LayerOperations()
# Relative to the result, and to values around 1 that have been summed up to it.
_TOLERANCE = {torch.bfloat16: 3e-2, torch.float16: 4e-3, torch.float32: 1e-4 if ON_GPU else 1e-5}


def random_tensor(*shape: int, dtype: torch.dtype, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype).to(DEVICE)


def random_norm(size: int, dtype: torch.dtype, seed: int) -> RMSNorm:
    return RMSNorm(random_tensor(size, dtype=dtype, seed=seed), 1e-6)


def exact(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.double()


def exact_norm(norm: RMSNorm | None) -> RMSNorm | None:
    return None if norm is None else RMSNorm(norm.weight.double(), norm.eps)


def exact_attention(layer: LayerAttention) -> LayerAttention:
    norms = None
    if layer.norms is not None:
        norms = RMSNorm(layer.norms[0].weight.double(), 1e-6), RMSNorm(layer.norms[1].weight.double(), 1e-6)
    return replace(layer, keys=layer.keys.double(), values=layer.values.double(), norms=norms)


def assert_close(found: Tensor, expected: Tensor, roundings: int = 1) -> None:
    tolerance = roundings * _TOLERANCE[found.dtype]
    torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance)
