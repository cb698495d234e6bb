"""What kernels that follow lists through a catalog are given."""

from typing import Any

import torch
import triton
from torch import Tensor

from padrec.decoding.lists.catalog_constraint import CatalogConstraint
from padrec.decoding.lists.constraint import FreeDecoding

# List states as kernels take them; without a catalog there are slots alone.
STATES = ("slot", "node", "used", "count")

# Kernels take one value after the other from a row that they hold in registers.
_MOST_TAKEN = 32
_LONGEST_ROW = 8192


def in_bytes(x: Tensor) -> Tensor:
    """The same numbers one behind the other, truth values as bytes."""
    return (x.view(torch.uint8) if x.dtype == torch.bool else x).contiguous()


def in_rows(x: Tensor) -> Tensor:
    """Numbers `[B, N, *]` as rows `[B N, *]`, which may stand apart: often they are a part of a wider product."""
    rows = x.flatten(0, 1)
    return rows if rows.stride(1) == 1 else rows.contiguous()


def list_numbers(constraint: CatalogConstraint | FreeDecoding) -> tuple[int, ...]:
    """Of lists, trie and tokens, as kernels take them."""
    vocabulary = constraint.vocabulary
    of_tokens = (vocabulary.n_slots, vocabulary.first_code, vocabulary.separator_token)
    if isinstance(constraint, FreeDecoding):
        return (0, 0, 0, *of_tokens)
    return (constraint.list_length, constraint.trie.first_leaf, constraint.trie.sink, *of_tokens)


def list_kinds(constraint: CatalogConstraint | FreeDecoding) -> dict[str, Any]:
    """What kernels are compiled for."""
    list_length = 1 if isinstance(constraint, FreeDecoding) else constraint.list_length
    return {"SEPARATED": constraint.vocabulary.separator, "BLOCK_L": block(list_length)}


def taking(n: int) -> dict[str, Any]:
    """Sizes of a program that takes the best of n numbers one by one: the fewer warps have to agree, the sooner."""
    return {"BLOCK": block(n), "num_warps": max(1, min(8, block(n) // 256))}


def fits_a_row(n: int, k: int) -> bool:
    """Whether a kernel can take the k largest of n values from registers."""
    return k <= _MOST_TAKEN and n <= _LONGEST_ROW


def block(n: int) -> int:
    """So many numbers of a program that has n."""
    return max(2, int(triton.next_power_of_2(n)))
