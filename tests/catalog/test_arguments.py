"""Wrong arguments of public constructors, all of them: none gets past the one check."""

import inspect
import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import pytest

import padrec
from padrec.catalog import InputError, NonNegativeInt, PositiveFloat, Range, Seed, check_arguments

_NOT_NUMBERS: list[Any] = [math.nan, math.inf, -math.inf, "7", True, [], 10**30]
_RESULTS = {padrec.RecommendedItem, InputError}  # what the library gives, not what it takes
# The lowest rating may be below 0.
_ANY_SIGN = {"min_rating"}


def numbers_in(hint: object) -> list[type]:
    """The kinds of numbers that an annotation names, inside optional ones and lists too."""
    if hint in (int, float):
        return [hint]
    return [kind for part in get_args(hint) for kind in numbers_in(part)] if get_origin(hint) is not Literal else []


def in_list(hint: object, value: object) -> object:
    """The value, in as many lists as the annotation has around its numbers."""
    for _ in range(str(hint).count("Sequence[") + str(hint).count("list[")):
        value = [value]
    return value


def is_optional(hint: object) -> bool:
    return type(None) in get_args(hint) or hint is Any


def ranges_in(hint: object) -> list[Range]:
    """The ranges that an annotation names, inside optional ones and lists too."""
    if get_origin(hint) is Annotated:
        return [part for part in get_args(hint)[1:] if isinstance(part, Range)]
    return [found for part in get_args(hint) for found in ranges_in(part)]


def bad_values(name: str, hint: object) -> Iterator[object]:
    """Values that an argument of this annotation refuses."""
    kinds = numbers_in(hint)
    if kinds:
        wrong = [value for value in _NOT_NUMBERS if value != 10**30 or float not in kinds]
        assert name in _ANY_SIGN or ranges_in(hint), f"{name} may be any number"
        wrong += [value for found in ranges_in(hint) for value in (-1, 0, 1, 2, 4, 2**32) if not found.holds(value)]
        yield from (in_list(hint, value) for value in wrong)
    elif bool in (hint, *get_args(hint)):
        yield from ("yes", 1)
    elif any(get_origin(part) is Literal for part in (hint, *get_args(hint))):
        yield "nonsense"
    else:
        return
    if not is_optional(hint):
        yield None


def cases() -> list[Any]:
    found = []
    for public in dir(padrec):
        kind = getattr(padrec, public)
        if (
            not inspect.isclass(kind)
            or kind in _RESULTS
            or issubclass(kind, Exception)
            or kind.__init__ is object.__init__
        ):
            continue
        hints = get_type_hints(kind.__init__, include_extras=True)
        for name in inspect.signature(kind).parameters:
            values = list(bad_values(name, hints.get(name, Any)))
            if values:
                found.append(pytest.param(kind, name, values, id=f"{public}-{name}"))
    return found


@pytest.mark.parametrize(("kind", "name", "values"), cases())
def test_every_constructor_refuses_what_its_annotations_exclude(kind: type, name: str, values: list[Any]) -> None:
    hints = get_type_hints(kind.__init__)  # type: ignore[misc]  # of this very class
    required = [key for key, value in inspect.signature(kind).parameters.items() if value.default is value.empty]
    others = {key: in_list(hints[key], 3 if numbers_in(hints[key]) else object()) for key in required}
    for value in values:
        with pytest.raises(InputError, match=rf"{name} is .*, expected "):
            kind(**{**others, name: value})


def test_a_message_names_class_argument_value_and_range() -> None:
    class Tree:
        def __init__(self, depth: NonNegativeInt | None, rate: PositiveFloat = 1.0, seed: Seed = 0) -> None:
            check_arguments(Tree, locals())

    Tree(None, 2, 2**32 - 1)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"depth": -1}, "Tree: depth is -1, expected at least 0 or null"),
        ({"depth": 0, "rate": math.nan}, "Tree: rate is nan, expected a finite number"),
        ({"depth": 0, "rate": 0.0}, "Tree: rate is 0.0, expected more than 0"),
        ({"depth": 0, "seed": 2**32}, "Tree: seed is 4294967296, expected 0 … 4294967295"),
    ]
    for arguments, message in wrong:
        with pytest.raises(InputError) as caught:
            Tree(**arguments)
        assert str(caught.value) == message
