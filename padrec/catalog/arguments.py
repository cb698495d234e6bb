"""The ranges of constructor arguments, and the one place that checks them."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from padrec.catalog.errors import InputError


class Range(NamedTuple):
    """Which numbers an argument takes, as a part of its annotation."""

    expected: str  # the range in words
    holds: Callable[[Any], bool]  # whether a number is in it

    def __repr__(self) -> str:
        return self.expected  # in --help


PositiveInt = Annotated[int, Range("at least 1", lambda value: value >= 1)]
# Far above any codebook, and far below what no memory holds.
CodebookSize = Annotated[int, Range("1 … 1048576", lambda value: 1 <= value <= 2**20)]
NonNegativeInt = Annotated[int, Range("at least 0", lambda value: value >= 0)]
# What `seed_everything` takes. Steps and batches multiply it by 10⁹, which stays below 2⁶³.
Seed = Annotated[int, Range("0 … 4294967295", lambda value: 0 <= value < 2**32)]
PositiveFloat = Annotated[float, Range("more than 0", lambda value: value > 0)]
NonNegativeFloat = Annotated[float, Range("at least 0", lambda value: value >= 0)]
ClosedUnitInterval = Annotated[float, Range("0 … 1", lambda value: 0 <= value <= 1)]
NonZeroShare = Annotated[float, Range("more than 0 and at most 1", lambda value: 0 < value <= 1)]
ProperShare = Annotated[float, Range("at least 0 and less than 1", lambda value: 0 <= value < 1)]


def check_arguments(kind: type, values: Mapping[str, object]) -> None:
    """Compare a constructor's arguments with its annotations: numbers are finite and in their ranges.

    Call it first in `__init__`, with `locals()`, or in `__post_init__`, with `vars(self)`; names that are no arguments
    are ignored. The InputError names the argument, its value and what was expected.
    """
    for name, hint in _hints(kind).items():
        expected = _unmet(values[name], hint) if name in values else None
        if expected is not None:
            raise InputError(f"{kind.__name__}: {name} is {values[name]!r}, expected {expected}")


@cache
def _hints(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind.__init__, include_extras=True)  # type: ignore[misc]  # of this very class
    return {name: hint for name, hint in hints.items() if name != "return"}


def _unmet(value: Any, hint: Any) -> str | None:  # noqa: ANN401  # any annotation
    """What the annotation expects instead of a value; None where the value may stand."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _unmet(value, parts[0]) or (None if parts[1].holds(value) else parts[1].expected)
    if origin in (Union, UnionType):
        unmet = [_unmet(value, part) for part in parts]
        return None if None in unmet else " or ".join(str(one) for one in unmet)
    if hint is NoneType:
        return None if value is None else "null"
    if origin is Literal:
        return None if value in parts else " or ".join(repr(part) for part in parts)
    if hint is int:
        fits = isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63
        return None if fits else "a 64-bit integer"
    if hint is float:
        fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        return None if fits else "a finite number"
    if hint is bool:
        return None if isinstance(value, bool) else "true or false"
    if origin in (list, Sequence):
        if not isinstance(value, Sequence) or isinstance(value, str):
            return "a list"
        return next((f"{wrong} each" for one in value if (wrong := _unmet(one, parts[0])) is not None), None)
    return f"a {getattr(hint, '__name__', hint)}" if value is None and hint is not Any else None
