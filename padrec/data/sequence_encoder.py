"""Writing item sequences as tokens."""

from dataclasses import dataclass

import torch
from torch import Tensor

from padrec.catalog import Catalog, SemanticIDVocabulary
from padrec.data.prompt_template import PromptTemplate

# First rows of the table of pieces; then every item as in a list, then every item as in a history.
_OPENING, _CLOSING, _CLOSING_TO_LIST, _NOTHING, _ITEMS = range(5)


@dataclass(frozen=True)
class EncodedSequences:
    """Sequences as tokens.

    Attributes:
        tokens: token ids, int64 `[B, T]`, padded on the right.
        slots: the slot of every token, int64 `[B, T]`; that of other tokens on text and padding.
        lengths: tokens in each row without padding, int64 `[B]`.
        columns: the item of the row that each code and separator belongs to, int64 `[B, T]`; -1 for other tokens.
    """

    tokens: Tensor
    slots: Tensor
    lengths: Tensor
    columns: Tensor

    def per_token(self, per_item: Tensor, other: int | bool) -> Tensor:
        """Expand values of items, `[B, N]`, to their codes and separators, `[B, T]`; other tokens get `other`."""
        return per_item.gather(1, self.columns.clamp(min=0)).where(self.columns >= 0, other)


class SequenceEncoder:
    """Writes item sequences as `<bos> item item …`, with a template as `<bos> text item item … text item item …`.

    A list marker distinguishes lists from what a user did next: `<bos> text item item … text <eos> item item …`.

    Args:
        vocabulary: the tokens.
        catalog: the items.
        template: the text around a history and its items, or None.
        list_marker: whether `<eos>` separates a history with its text from a list.

    Raises:
        InputError: the catalog has codes without a token in the vocabulary, or no titles for the template.
    """

    def __init__(
        self,
        vocabulary: SemanticIDVocabulary,
        catalog: Catalog,
        template: PromptTemplate | None = None,
        list_marker: bool = False,
    ) -> None:
        self.vocabulary = vocabulary
        items = vocabulary.encode(catalog.codes)  # [n_items, item_length]
        opening, closing = ([], []) if template is None else (template.opening, template.closing)
        marker = [vocabulary.eos_token] if list_marker else []
        around: list[list[int]] = [[vocabulary.bos_token, *opening], closing, [*closing, *marker], []]
        pieces = [torch.tensor(tokens, dtype=torch.long) for tokens in around] + [items.flatten()]
        lengths = [torch.tensor([len(tokens) for tokens in around]), torch.full((len(items),), items.shape[1])]
        slots = [torch.full((len(piece),), vocabulary.other_slot) for piece in pieces[:_ITEMS]]
        slots.append(torch.arange(items.shape[1]).repeat(len(items)))
        self._history_items = _ITEMS
        if template is not None:
            self._history_items += len(items)
            parts = _with_text(items, template, catalog, vocabulary.other_slot)
            for table, part in zip((pieces, slots, lengths), parts, strict=True):
                table.append(part)
        self._tokens, self._slots, self._lengths = torch.cat(pieces), torch.cat(slots), torch.cat(lengths)
        self._starts = self._lengths.cumsum(0) - self._lengths

    def longest(self, history: int, following: int, to_list: bool) -> int:
        """Return the most tokens of a sequence of `history` and `following` items; for `to_list` see `encode`."""
        around = int(self._lengths[_OPENING] + self._lengths[_CLOSING_TO_LIST if to_list else _CLOSING])
        longest_item = int(self._lengths[self._history_items :].max())
        return around + history * longest_item + following * self.vocabulary.item_length

    def encode(self, items: Tensor, history: Tensor | None = None, to_list: Tensor | None = None) -> EncodedSequences:
        """Write a batch of sequences as tokens.

        Args:
            items: item indices, int64 `[B, N]`, padded with -1 on the right.
            history: number of a row's items that are its history, int64 `[B]`; the others follow its text. None: all.
            to_list: whether a list follows a row's history, in `items` or to be decoded, bool `[B]`; only these rows
                have a marker. None: no row.
        """
        vocabulary = self.vocabulary
        history = ((items >= 0).sum(1) if history is None else history)[:, None]
        to_list = torch.zeros(len(items), dtype=torch.bool) if to_list is None else to_list
        pieces = self._pieces(items, history, to_list[:, None])  # [B, N + 2]
        ends = self._lengths[pieces].cumsum(1)
        lengths = ends[:, -1]
        position = torch.arange(int(lengths.max())).expand(len(items), -1).contiguous()  # [B, T]
        present = position < lengths[:, None]
        piece = torch.searchsorted(ends, position, right=True).clamp(max=pieces.shape[1] - 1)
        begins = ends - self._lengths[pieces]
        source = (self._starts[pieces] - begins).gather(1, piece) + position
        source = source.where(present, 0)
        tokens = self._tokens[source].where(present, vocabulary.pad_token)
        slots = self._slots[source].where(present, vocabulary.other_slot)
        columns = _column(piece, history).where(slots != vocabulary.other_slot, -1)
        return EncodedSequences(tokens, slots, lengths, columns)

    def _pieces(self, items: Tensor, history: Tensor, to_list: Tensor) -> Tensor:
        """The pieces of each row, as rows of the table of pieces, `[B, N + 2]`."""
        place = torch.arange(items.shape[1] + 2).expand(len(items), -1)
        item = items.gather(1, _column(place, history).clamp(0, items.shape[1] - 1))
        first = torch.where(place <= history, self._history_items, _ITEMS)
        pieces = torch.where(item >= 0, first + item, _NOTHING)
        closing = torch.where(to_list, _CLOSING_TO_LIST, _CLOSING)
        return torch.where(place == history + 1, closing, pieces.masked_fill(place == 0, _OPENING))


def _with_text(
    items: Tensor, template: PromptTemplate, catalog: Catalog, other_slot: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Concatenated tokens and slots of all items in the template's text, and the length of each item."""
    tokens: list[int] = []
    slots: list[int] = []
    lengths = []
    texts_before, texts_after = template.item_texts(catalog)
    for before, item, after in zip(texts_before, items.tolist(), texts_after, strict=True):
        tokens += [*before, *item, *after]
        slots += [*[other_slot] * len(before), *range(len(item)), *[other_slot] * len(after)]
        lengths.append(len(before) + len(item) + len(after))
    return torch.tensor(tokens), torch.tensor(slots), torch.tensor(lengths)


def _column(piece: Tensor, history: Tensor) -> Tensor:
    """The item in a place of a row: after the opening, and in a list also after the closing."""
    return torch.where(piece <= history, piece - 1, piece - 2)
