"""Arguments of Triton kernels that follow lists through a catalog.

Kernels take these tuples as they are: tensors become pointers, and whether a tuple or a field is None is known when a
kernel is compiled. An integer of 1 is a plain `int` there, so kernels combine fields with tensors only.
"""

from dataclasses import fields
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from padrec.decoding.lists.catalog_constraint import CatalogConstraint
from padrec.decoding.lists.constraint import FreeDecoding
from padrec.decoding.lists.list_state import ListState

KnownConstraint = CatalogConstraint | FreeDecoding


class States(NamedTuple):
    """A `ListState`, or a `CatalogState`."""

    slot: Tensor
    node: Tensor | None = None
    used: Tensor | None = None
    count: Tensor | None = None  # type: ignore[assignment]  # not the method of tuples

    @classmethod
    def of(cls, states: ListState) -> "States":
        """The tensors of list states, made contiguous."""
        return cls(**{field.name: getattr(states, field.name).contiguous() for field in fields(states)})


class Trie(NamedTuple):
    """A `CatalogTrie`."""

    first_child: Tensor
    child_token: Tensor
    low: Tensor
    high: Tensor
    only_token: Tensor
    last_edge: int
    first_leaf: int
    sink: int
    available: Tensor | None = None  # see `CatalogConstraint`


class Lists(NamedTuple):
    """Sizes and tokens of lists; the length is 0 without a catalog."""

    length: int
    n_slots: int
    first_code: int
    separator: int


def list_arguments(constraint: KnownConstraint) -> dict[str, Any]:
    """Arguments `trie` (None without a catalog), `lists` and `SEPARATED`."""
    vocabulary, trie, length = constraint.vocabulary, None, 0
    if isinstance(constraint, CatalogConstraint):
        known, length = constraint.trie, constraint.list_length
        arrays = (known.first_child, known.child_token, known.low, known.high, known.only_token)
        trie = Trie(*arrays, last_edge=len(known.child_token) - 1, first_leaf=known.first_leaf, sink=known.sink)
        trie = trie._replace(available=constraint.available)
    lists = Lists(length, vocabulary.n_slots, vocabulary.first_code, vocabulary.separator_token)
    return {"trie": trie, "lists": lists, "SEPARATED": vocabulary.separator}


def in_bytes(x: Tensor) -> Tensor:
    """Make a tensor contiguous, and booleans bytes."""
    return (x.view(torch.uint8) if x.dtype == torch.bool else x).contiguous()


def in_rows(x: Tensor) -> Tensor:
    """Flatten `[B, N, *]` to rows `[B N, *]`, which need not be adjacent: often they are part of a wider product."""
    rows = x.flatten(0, 1)
    return rows if rows.stride(1) == 1 else rows.contiguous()


def block(n: int) -> int:
    """The block size for n values: a power of two, at least 2."""
    return max(2, int(triton.next_power_of_2(n)))
