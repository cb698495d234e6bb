"""The choice of a round's operations, made once when a decoder is bound."""

from typing import Any

import torch

from padrec.decoding.device.early_launch import has_kernels
from padrec.decoding.lists.catalog_constraint import CatalogConstraint
from padrec.decoding.lists.constraint import FreeDecoding
from padrec.decoding.lists.request import Request
from padrec.decoding.rounds.round_operations import RoundOperations


def round_operations_for(device: torch.device, dtype: torch.dtype, request: Request[Any]) -> RoundOperations:
    """Kernels where the device runs them and they know the request's constraint, else plain PyTorch."""
    # A subclass may decide otherwise than the kernels, which stand in for the classes themselves.
    known = type(request.constraint) in (CatalogConstraint, FreeDecoding) and len(request.stop_tokens) == 1
    if known and has_kernels(device, dtype):
        from padrec.decoding.rounds.triton_round_operations import TritonRoundOperations

        return TritonRoundOperations()
    return RoundOperations()
