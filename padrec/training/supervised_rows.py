"""Picking the supervised tokens out of a batch."""

from torch import Tensor


def rows_of(mask: Tensor) -> Tensor:
    """The places of True in a mask `[B, T]`, row by row: `b T + t`, int64 `[M]`.

    It waits for the device, which every indexing by a mask does. So a step asks once, before there is much to wait for.
    """
    return mask.flatten().nonzero().squeeze(1)


def picked(values: Tensor, rows: Tensor) -> Tensor:
    """Of values `[B, T, *]` those at the places that `rows_of` found: `[M, *]`."""
    return values.flatten(0, 1).index_select(0, rows)
