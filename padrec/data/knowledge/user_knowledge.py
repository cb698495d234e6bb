"""Prompts about users, from the titles of what they bought."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from padrec.catalog import InputError, NonNegativeInt, PositiveInt, check_arguments
from padrec.data.knowledge.text_prompts import PromptSource, TextPrompts, check_template, first_words
from padrec.data.readers import Reader


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
        check_template("template", self.template, ["history"])
        check_template("item", self.item, ["title"])

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
        prompts = {
            user: self.template.format(history="".join(lines[item] for item in row))
            for user, row in zip(split.user_keys, shown, strict=True)
            if row
        }
        return TextPrompts(dataset.name, tuple(prompts), tuple(prompts.values()))
