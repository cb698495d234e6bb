"""Prompts of plain text with the keys of what they are about, and the protocol of their sources."""

import ast
import html
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Protocol

from padrec.catalog import InputError

_MARK_UP = re.compile(r"<[^<>]*>")


@dataclass(frozen=True)
class TextPrompts:
    """Prompts for a language model.

    Attributes:
        name: name of the data in reports.
        keys: the users' own keys of the items or users that the prompts are about, `[n]`, all different.
        texts: the prompts, `[n]`.

    Raises:
        InputError: there are none.
    """

    name: str
    keys: tuple[str, ...]
    texts: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.keys:
            raise InputError(f"{self.name}: no prompts, expected at least one")

    def select(self, rows: Sequence[int]) -> "TextPrompts":
        """The prompts of these rows."""
        return TextPrompts(self.name, tuple(self.keys[row] for row in rows), tuple(self.texts[row] for row in rows))


class PromptSource(Protocol):
    """Makes the prompts of a data set.

    A source is a class in a file of its own with primitive constructor arguments; a config names it by `class_path`.
    """

    def read(self, as_text: Callable[[Iterable[str]], list[str]]) -> TextPrompts:
        """Read the data and fill the template.

        Args:
            as_text: makes the language model read special tokens in texts of the data as text. The template's own
                special tokens, such as `<|im_start|>`, keep their meaning.

        Raises:
            InputError: a file is missing or wrong, or the template names what the data do not have.
        """
        ...


def check_template(name: str, template: str, fields: Collection[str]) -> None:
    """Check the placeholders of a template for `str.format`.

    Raises:
        InputError: there is none, one is unknown or has a format, or a brace stands alone.
    """
    expected = ", ".join(f"{{{field}}}" for field in fields)
    try:
        parts = [part[1:] for part in Formatter().parse(template) if part[1] is not None]
    except ValueError as error:
        raise InputError(f"{name} {template!r}: {error}; write a literal brace twice") from None
    for field, form, conversion in parts:
        if form or conversion or field not in fields:
            raise InputError(f"{name} {template!r}: {{{field}}}, expected some of {expected}")
    if not parts:
        raise InputError(f"{name} {template!r}: no placeholder, expected some of {expected}")


def first_words(text: str, most: int) -> str:
    """The first `most` words of a text of a shop, on one line: without mark-up, and without the signs of a list.

    Some data sets write a list of strings as Python does, `['one', 'two']`, instead of a text.
    """
    if text.startswith("["):
        try:
            parts = ast.literal_eval(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):  # a text in brackets
            parts = None
        if isinstance(parts, list):
            text = " ".join(part for part in parts if isinstance(part, str))
    return " ".join(_MARK_UP.sub(" ", html.unescape(text)).split()[:most])
