"""From item indices to tokens."""

import torch
from torch import Tensor

from padrec.catalog import Catalog, SemanticIDVocabulary


class SequenceEncoder:
    """Writes item sequences as `<bos> item item …`.

    Args:
        vocabulary: the tokens.
        catalog: the items.

    Raises:
        InputError: the catalog has codes that the vocabulary has no token for.
    """

    def __init__(self, vocabulary: SemanticIDVocabulary, catalog: Catalog) -> None:
        self.vocabulary = vocabulary
        self.item_tokens = vocabulary.encode(catalog.codes)  # [n_items, item_length]

    def encode(self, items: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens, slots and lengths of a batch of sequences.

        Args:
            items: item indices, int64 `[B, N]`, -1 behind a row's last item.

        Returns:
            Token ids int64 `[B, 1 + N * item_length]`, padded on the right; their slots, the same shape; the tokens
            in each row without padding, int64 `[B]`.
        """
        vocabulary = self.vocabulary
        item_tokens = self.item_tokens[items.clamp(min=0)].flatten(1)  # [B, N * item_length]
        present = self.per_token(items >= 0, bos=True)  # [B, T]
        tokens = torch.cat([item_tokens.new_full((len(items), 1), vocabulary.bos_token), item_tokens], dim=1)
        slots = vocabulary.sequence_slots(tokens.shape[1]).expand_as(tokens)
        return (
            tokens.where(present, torch.full_like(tokens, vocabulary.pad_token)),
            slots.where(present, torch.full_like(tokens, vocabulary.other_slot)),
            present.sum(1),
        )

    def mark_lists(self, tokens: Tensor, slots: Tensor, histories: Tensor) -> tuple[Tensor, Tensor]:
        """Put `<eos>`, which says that a list follows, behind the history of rows that `encode` made.

        Args:
            tokens: int64 `[B, T]`.
            slots: int64 `[B, T]`.
            histories: items of history in each row, int64 `[B]`; -1 for a row without a list, which gets one more
                padding token instead.

        Returns:
            Tokens and slots, int64 `[B, T + 1]`.
        """
        vocabulary = self.vocabulary
        return (
            self.make_room(tokens, histories, vocabulary.eos_token, vocabulary.pad_token),
            self.make_room(slots, histories, vocabulary.other_slot, vocabulary.other_slot),
        )

    def make_room(self, values: Tensor, histories: Tensor, marker: int, padding: int) -> Tensor:
        """A value of every token, `[B, T]`, with one for the marker of `mark_lists` put in: `[B, T + 1]`.

        Args:
            values: of the tokens.
            histories: see `mark_lists`.
            marker: the marker's value.
            padding: the value behind rows without a marker.
        """
        last = values.shape[1]
        place = (1 + histories * self.vocabulary.item_length).where(histories >= 0, last)[:, None]  # [B, 1]
        here = torch.arange(last + 1).expand(len(values), -1)
        moved = values.gather(1, (here - (here > place).long()).clamp(max=last - 1))
        added = torch.full_like(place, marker).where(histories[:, None] >= 0, padding).to(values.dtype)
        return moved.where(here != place, added)

    def per_token(self, per_item: Tensor, bos: bool) -> Tensor:
        """A flag of every item, bool `[B, N]`, as a flag of every token, bool `[B, 1 + N * item_length]`.

        Args:
            per_item: the items' flags.
            bos: the flag of `<bos>`.
        """
        items = per_item.repeat_interleave(self.vocabulary.item_length, dim=1)
        return torch.cat([per_item.new_full((len(per_item), 1), bos), items], dim=1)
