"""Prompts about items, from their texts."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from padrec.catalog import PositiveInt, check_arguments
from padrec.data.item_texts import TextReader
from padrec.data.knowledge.text_prompts import PromptSource, TextPrompts, check_template, first_words


@dataclass(frozen=True)
class ItemKnowledge(PromptSource):
    """Asks what a language model knows about each item.

    Args:
        texts: reads the items' texts; in a config a `class_path` with `init_args`.
        template: the prompt, with a placeholder for each field to show, such as `{title}` and `{description}`; write
            literal braces twice.
        max_words: most words of a field; mark-up is left out.

    Raises:
        InputError: `max_words` is below 1; from `read`, a wrong file, or a placeholder without such a field.
    """

    texts: TextReader
    template: str
    max_words: PositiveInt = 40

    def __post_init__(self) -> None:
        check_arguments(ItemKnowledge, vars(self))

    def read(self, as_text: Callable[[Iterable[str]], list[str]]) -> TextPrompts:
        """See `PromptSource`."""
        items = self.texts.read()
        check_template("template", self.template, items.fields)
        columns = {
            field: as_text(first_words(text, self.max_words) for text in texts) for field, texts in items.fields.items()
        }
        rows = (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))
        return TextPrompts(Path(items.source).name, items.keys, tuple(self.template.format(**row) for row in rows))
