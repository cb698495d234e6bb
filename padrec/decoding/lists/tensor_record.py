"""Records of tensors that are changed as a whole."""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, Self

from torch import Tensor


class TensorRecord:
    """Base of dataclasses whose fields are all tensors."""

    def map(self, change: Callable[..., Tensor], *others: Self) -> Self:
        """Apply a function to every tensor, given those of other records, too."""
        record: Any = self
        names = [field.name for field in fields(record)]
        changed: Self = replace(record, **{n: change(*(getattr(r, n) for r in (self, *others))) for n in names})
        return changed

    def clone(self) -> Self:
        """Copy all tensors."""
        return self.map(lambda value: value.clone())

    def copy_(self, other: Self) -> None:
        """Overwrite the values with those of a record of the same shapes."""
        self.map(Tensor.copy_, other)


def pick(values: Tensor, places: Tensor) -> Tensor:
    """Gather entries: values `[B, N, *]` at `places`, int64 `[B, M]`, give `[B, M, *]`."""
    wide = places.view(*places.shape, *[1] * (values.ndim - 2)).expand(*places.shape, *values.shape[2:])
    return values.gather(1, wide)
