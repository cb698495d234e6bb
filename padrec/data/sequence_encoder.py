"""Writing item sequences as tokens."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from padrec.catalog import Catalog, SemanticIDVocabulary
from padrec.data.item_sequences import padded_rows
from padrec.data.prompt_template import PromptTemplate

# First rows of the table of pieces; then every item as in a list, then every item as in a history.
_OPENING, _CLOSING, _CLOSING_TO_LIST, _NOTHING, _ITEMS = range(5)

_Ints = NDArray[np.int64]


@dataclass(frozen=True)
class EncodedPrompts:
    """Prompts as tokens."""

    tokens: Tensor  # token ids, int64 [B, T], padded on the right
    slots: Tensor  # the slot of every token, int64 [B, T]; that of other tokens on text and padding
    lengths: Tensor  # tokens in each row without padding, int64 [B]


@dataclass(frozen=True)
class EncodedSequences(EncodedPrompts):
    """Sequences as tokens."""

    columns: Tensor  # the item of the row that each code and separator belongs to, int64 [B, T]; -1 for other tokens

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
        # The last token of all is what -1 reads: padding.
        pieces.append(torch.tensor([vocabulary.pad_token]))
        slots.append(torch.tensor([vocabulary.other_slot]))
        # Arrays, whose operations take a fifth of a tensor's time on batches as small as a service's.
        self._tokens, self._slots, self._lengths = (torch.cat(table).numpy() for table in (pieces, slots, lengths))
        self._starts = self._lengths.cumsum() - self._lengths

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
        rows = items.numpy()
        count = (rows >= 0).sum(1) if history is None else history.numpy()
        listed = np.zeros(len(rows), dtype=bool) if to_list is None else to_list.numpy()
        pieces = self._pieces(rows, count[:, None], listed[:, None])  # [B, N + 2]
        written = self._written(pieces)
        column = _column(np.arange(pieces.shape[1]), count[:, None]).ravel()
        of_tokens = np.repeat(column, self._lengths[pieces.ravel()])
        columns = torch.from_numpy(padded_rows(of_tokens, written.lengths.numpy()))
        return EncodedSequences(**vars(written), columns=columns.where(written.slots != self.vocabulary.other_slot, -1))

    def prompts(self, histories: Sequence[Sequence[int]]) -> EncodedPrompts:
        """Write prompts of lists to be decoded, histories of item indices, as `encode` does but faster."""
        longest, first = max(map(len, histories)), self._history_items
        rows = [
            [_OPENING, *[first + item for item in history], _CLOSING_TO_LIST, *[_NOTHING] * (longest - len(history))]
            for history in histories
        ]
        return self._written(np.array(rows))

    def _written(self, pieces: _Ints) -> EncodedPrompts:
        """The tokens of pieces, as rows of the table of pieces, `[B, N]`."""
        sizes = self._lengths[pieces]
        lengths = sizes.sum(1)
        # From here on, all rows are laid end to end.
        piece, sizes = pieces.ravel(), sizes.ravel()
        ends = sizes.cumsum()
        source = np.arange(ends[-1]) + np.repeat(self._starts[piece] - ends + sizes, sizes)
        table = padded_rows(source, lengths)
        return EncodedPrompts(*map(torch.from_numpy, (self._tokens[table], self._slots[table], lengths)))

    def _pieces(self, items: _Ints, history: _Ints, to_list: NDArray[np.bool_]) -> _Ints:
        """The pieces of each row, as rows of the table of pieces, `[B, N + 2]`."""
        place = np.arange(items.shape[1] + 2)
        item = np.take_along_axis(items, _column(place, history).clip(0, items.shape[1] - 1), 1)
        first = np.where(place <= history, self._history_items, _ITEMS)
        pieces = np.where(item >= 0, first + item, _NOTHING)
        pieces[:, 0] = _OPENING
        return np.where(place == history + 1, np.where(to_list, _CLOSING_TO_LIST, _CLOSING), pieces)


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


def _column(piece: _Ints, history: _Ints) -> _Ints:
    """The item in a place of a row: after the opening, and in a list also after the closing."""
    return np.where(piece <= history, piece - 1, piece - 2)
