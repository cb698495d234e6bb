"""Prompts that ask a language model what it knows about items and users."""

import html
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Literal, Protocol

from padrec.catalog import InputError, NonNegativeInt, PositiveInt, check_arguments
from padrec.data.item_texts import TextReader
from padrec.data.readers.reader import Reader
from padrec.data.text_file import python_literal

_MARK_UP = re.compile(r"<[^<>]*>")


@dataclass(frozen=True)
class TextPrompts:
    """Prompts for a language model; none are an InputError."""

    name: str  # of the data in reports
    keys: tuple[str, ...]  # the data's own, of the items or users that the prompts are about, [n], all different
    texts: tuple[str, ...]  # the prompts, [n]
    items: tuple[tuple[str, ...], ...]  # keys of the items that each prompt shows, [n]

    def __post_init__(self) -> None:
        if not self.keys:
            raise InputError(f"{self.name}: no prompts, expected at least one")

    def select(self, rows: Sequence[int]) -> "TextPrompts":
        """The prompts of these rows."""
        keys, texts = tuple(self.keys[row] for row in rows), tuple(self.texts[row] for row in rows)
        return TextPrompts(self.name, keys, texts, tuple(self.items[row] for row in rows))


class PromptSource(Protocol):
    """Makes the prompts of a data set."""

    def read(self, as_text: Callable[[Iterable[str]], list[str]]) -> TextPrompts:
        """Read the data and fill the template; one that names what the data do not have is an InputError.

        `as_text` makes the language model read special tokens in texts of the data as text. The template's own special
        tokens, such as `<|im_start|>`, keep their meaning.
        """


@dataclass(frozen=True)
class ItemKnowledge(PromptSource):
    """Asks what a language model knows about each item.

    Args:
        texts: reads the items' texts; in a config a `class_path` with `init_args`.
        template: the prompt, with a placeholder for each field to show, such as `{title}` and `{description}`; write
            literal braces twice.
        max_words: most words of a field; mark-up is left out.

    Raises:
        InputError: from `read`, a wrong file, or a placeholder without such a field.
    """

    texts: TextReader
    template: str
    max_words: PositiveInt = 40

    def __post_init__(self) -> None:
        check_arguments(ItemKnowledge, vars(self))

    def read(self, as_text: Callable[[Iterable[str]], list[str]]) -> TextPrompts:
        """See `PromptSource`."""
        items = self.texts.read()
        _check_template("template", self.template, items.fields)
        columns = {
            field: as_text(first_words(text, self.max_words) for text in texts) for field, texts in items.fields.items()
        }
        rows = (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))
        texts = tuple(self.template.format(**row) for row in rows)
        return TextPrompts(Path(items.source).name, items.keys, texts, tuple((key,) for key in items.keys))


@dataclass(frozen=True)
class UserKnowledge(PromptSource):
    """Asks what a language model knows about each user, given the titles of the user's history.

    Users whose history is empty have no prompt.

    Args:
        reader: reads catalog and interactions; in a config a `class_path` with `init_args`.
        template: the prompt, with the titles at `{history}`; write literal braces twice.
        item: a line of the history, with the title at `{title}`.
        before: which items a history holds: those before the first `validation` item, or before the first `test` item.
        max_history: most items of a history, the last ones.
        leave_out: items left out at the end of a history: an earlier prompt of the same user, as it was before them.
        max_words: most words of a title.

    Raises:
        InputError: an argument out of range, a template without its placeholder; from `read`, wrong data, or items
            without titles.
    """

    reader: Reader
    template: str
    item: str = "- {title}\n"
    before: Literal["validation", "test"] = "test"
    max_history: PositiveInt = 10
    leave_out: NonNegativeInt = 0
    max_words: PositiveInt = 20

    def __post_init__(self) -> None:
        check_arguments(UserKnowledge, vars(self))
        _check_template("template", self.template, ["history"])
        _check_template("item", self.item, ["title"])

    def read(self, as_text: Callable[[Iterable[str]], list[str]]) -> TextPrompts:
        """See `PromptSource`."""
        dataset = self.reader.read()
        if dataset.catalog.texts is None:
            raise InputError(f"{dataset.catalog.source}: items without titles, expected some for prompts about users")
        split = dataset.split("drop")
        histories = split.train if self.before == "validation" else split.test_history
        titles = as_text(first_words(text, self.max_words) for text in dataset.catalog.texts)
        lines = [self.item.format(title=title) for title in titles]
        rows = (histories.row(user).tolist() for user in range(len(histories)))
        shown = [row[: max(0, len(row) - self.leave_out)][-self.max_history :] for row in rows]
        prompts = {user: row for user, row in zip(split.user_keys, shown, strict=True) if row}
        texts = (self.template.format(history="".join(lines[item] for item in row)) for row in prompts.values())
        items = (tuple(dataset.catalog.keys[item] for item in row) for row in prompts.values())
        return TextPrompts(dataset.name, tuple(prompts), tuple(texts), tuple(items))


def _check_template(name: str, template: str, fields: Collection[str]) -> None:
    """Refuse a template for `str.format` without placeholders, with an unknown or formatted one, or a lone brace."""
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
            parts = python_literal(text)
        except ValueError:  # a text in brackets
            parts = None
        if isinstance(parts, list):
            text = " ".join(part for part in parts if isinstance(part, str))
    return " ".join(_MARK_UP.sub(" ", html.unescape(text)).split()[:most])
