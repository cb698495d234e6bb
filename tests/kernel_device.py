"""Where tests run kernels: on a GPU, or without one on the CPU, by Triton's interpreter (see `tests/conftest.py`)."""

import pytest
import torch

ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if ON_GPU else "cpu")
# The interpreter's arithmetic with bfloat16 is wrong, and a CPU has no matrix unit that other precisions are for.
DTYPES = [torch.bfloat16, torch.float16, torch.float32] if ON_GPU else [torch.float32]

needs_gpu = pytest.mark.skipif(not ON_GPU, reason="needs a CUDA device")
CPU_AND_GPU = [torch.device("cpu"), pytest.param(torch.device("cuda"), marks=needs_gpu)]
_starts_early = ON_GPU and torch.cuda.get_device_capability() >= (9, 0)
needs_early_launch = pytest.mark.skipif(not _starts_early, reason="needs a GPU that launches kernels early")
