"""Prompts with text: instructions, and items with their titles."""

from collections.abc import Sequence
from pathlib import Path
from string import Formatter

from transformers import PreTrainedTokenizerBase

from padrec.catalog import Catalog, InputError, PositiveInt, SemanticIDVocabulary, check_arguments
from padrec.data.tokenizer import as_text, load_tokenizer, n_tokens, tokenizer_fingerprint


class PromptTemplate:
    """Text around the semantic IDs of a prompt, for targets that start from a pretrained language model.

    A prompt is the text before `{history}`, the items of the history, and the text after it. Each item is the text of
    `item` with its semantic-ID tokens in place of `{item}`. The list that follows a prompt has no text.

    Text is tokenized in pieces between the semantic IDs. The tokenizer adds no special tokens, but special tokens in
    the text, such as `<|im_start|>user`, are recognised; those in titles are read as text.

    Args:
        tokenizer: folder or hub name of the pretrained language model, whose tokens come first in the vocabulary.
        text: the prompt; contains `{history}` once. `{{` and `}}` stand for braces.
        item: an item of the history; contains `{item}` once and may contain `{title}` once.
        max_title_tokens: most tokens of a title, at least 1.

    Raises:
        InputError: no such tokenizer, a placeholder is missing, unknown or occurs twice, the tokenizer has no token
            for a part of the text, or `max_title_tokens` is below 1.
    """

    def __init__(
        self, tokenizer: str, text: str = "{history}", item: str = "{item}", max_title_tokens: PositiveInt = 32
    ) -> None:
        check_arguments(PromptTemplate, locals())
        before, after = _around("text", text, "history")
        item_before, item_after = _around("item", item, "item", also="title")
        self._name = tokenizer
        self.settings = {"tokenizer": tokenizer, "text": text, "item": item, "max_title_tokens": max_title_tokens}
        self._tokenizer = load_tokenizer(tokenizer)
        self._item = (item_before, item_after)
        self._max_title_tokens = max_title_tokens
        self.opening = self._literal(before[0])
        self.closing = self._literal(after[0])
        self.has_titles = len(item_before) + len(item_after) > 2
        self.text_tokens = n_tokens(self._tokenizer)
        self.fingerprint = tokenizer_fingerprint(self._tokenizer)
        for literal in (*item_before, *item_after):
            self._literal(literal)

    def item_texts(self, catalog: Catalog) -> tuple[list[list[int]], list[list[int]]]:
        """Return text tokens before and after the semantic ID of every item, each `[n_items]` lists."""
        if self.has_titles and catalog.texts is None:
            raise InputError(f"{catalog.source}: no titles, but the prompt template has {{title}} in its item")
        before, after = (self._side(parts, catalog) for parts in self._item)
        return before, after

    def extended_tokenizer(self, vocabulary: SemanticIDVocabulary) -> PreTrainedTokenizerBase:
        """The tokenizer with the tokens of semantic IDs, which it must not have, appended under the target's ids."""
        names = [vocabulary.token_name(token) for token in range(vocabulary.text_tokens, vocabulary.size)]
        self.check(vocabulary)
        tokenizer = load_tokenizer(self._name)
        tokenizer.add_tokens(names)
        if tokenizer.convert_tokens_to_ids(names) != list(range(vocabulary.text_tokens, vocabulary.size)):
            raise InputError(f"{self._name}: skips token ids, so that tokens cannot be appended after its last id")
        return tokenizer

    def save_tokenizer(self, folder: Path) -> None:
        """Write the tokenizer without tokens of semantic IDs, for another template to read."""
        self._tokenizer.save_pretrained(folder)

    def check(self, vocabulary: SemanticIDVocabulary) -> None:
        """Refuse a tokenizer with semantic-ID tokens of the vocabulary, which mean something else to the model."""
        known = self._tokenizer.get_vocab()
        for token in range(vocabulary.text_tokens, vocabulary.size):
            name = vocabulary.token_name(token)
            if name in known:
                raise InputError(f"{self._name}: has a token {name} already, expected a tokenizer without semantic IDs")

    def _literal(self, text: str) -> list[int]:
        tokens = self._tokens([text])[0]
        if self._tokenizer.unk_token_id is not None and self._tokenizer.unk_token_id in tokens:
            raise InputError(f"{self._name}: has no token for a part of {text!r}, expected one that can write it")
        return tokens

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        found: list[list[int]] = self._tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return found

    def _side(self, parts: list[str], catalog: Catalog) -> list[list[int]]:
        """One side of `{item}` for every item: one part of text, or two with the title between them."""
        if len(parts) == 1:
            return self._tokens(parts) * catalog.n_items
        head, tail = parts
        # The title is tokenized with the text before it, since a word's tokens differ after a space.
        longest = len(self._tokens([head])[0]) + self._max_title_tokens
        end = self._tokens([tail])[0]
        titles = as_text(catalog.texts or (), self._tokenizer)
        return [tokens[:longest] + end for tokens in self._tokens([head + title for title in titles])]


def _around(name: str, template: str, required: str, also: str | None = None) -> tuple[list[str], list[str]]:
    """The text before and after a placeholder, each in two parts if it contains the other placeholder."""
    allowed = [f"{{{field}}}" for field in (required, also) if field is not None]
    sides: list[list[str]] = [[""]]
    seen: list[str] = []
    try:
        for literal, field, form, conversion in Formatter().parse(template):
            sides[-1][-1] += literal
            if field is None:
                continue
            seen.append(field)
            if form or conversion or f"{{{field}}}" not in allowed or seen.count(field) > 1:
                raise InputError(f"prompt {name} {template!r}: {{{field}}}, expected {' and '.join(allowed)} once each")
            if field == required:
                sides.append([""])
            else:
                sides[-1].append("")
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"prompt {name} {template!r}: {error}; write a literal brace twice") from None
    if required not in seen:
        raise InputError(f"prompt {name} {template!r}: no {{{required}}}, expected it once")
    return sides[0], sides[1]
