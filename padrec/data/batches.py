"""The batches that dataloaders yield."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


@dataclass
class TensorBatch:
    """A batch whose fields are all tensors with one row per example."""

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """Return the batch on another device."""
        return type(self)(*(tensor.to(device, non_blocking=non_blocking) for tensor in vars(self).values()))

    def rows(self, which: Tensor) -> Self:
        """Return the rows selected by a mask, bool `[B]`, or by indices."""
        return type(self)(*(tensor[which] for tensor in vars(self).values()))


@dataclass
class SequenceBatch(TensorBatch):
    """Sequences `<bos> item item …` to train on, with a template's text if there is one, padded on the right."""

    tokens: Tensor  # token ids, int64 [B, T]
    slots: Tensor  # the slot of every token, int64 [B, T]; that of other tokens on padding
    lengths: Tensor  # tokens in each row without padding, int64 [B]
    # True for tokens to predict from those before, bool [B, T]; never `<bos>`, text or padding. A row without any only
    # keeps the processes in step.
    supervised: Tensor
    items: Tensor  # index of the item that every code and separator belongs to, int64 [B, T]; -1 for other tokens


@dataclass
class PromptBatch(TensorBatch):
    """Histories `<bos> item … item` after which to decode a list, padded on the right.

    A prompt ends with an item, including its separator, or with a template's text: the next token is a code of slot 0.
    """

    tokens: Tensor  # token ids, int64 [B, P]
    slots: Tensor  # the slot of every token, int64 [B, P]; that of other tokens on padding
    lengths: Tensor  # tokens in each row without padding, int64 [B]
    users: Tensor  # row of the user in the datamodule's `user_keys`, int64 [B]; -1 for an unknown user
    history: Tensor  # item indices of the prompt, int64 [B, H], padded with -1 on the right
    relevant: Tensor  # distinct leaves of the ground truth, int64 [B, R], padded with -1 on the right
    relevant_items: Tensor  # distinct items of the ground truth, int64 [B, R], padded with -1 on the right
    counted: Tensor  # bool [B], False for padding rows, which make the size a multiple of the processes


@dataclass
class TextPromptBatch(TensorBatch):
    """Prompts of text to continue, padded on the right."""

    tokens: Tensor  # token ids, int64 [B, P]
    lengths: Tensor  # tokens in each row without padding, int64 [B]
    users: Tensor  # row of each prompt in the datamodule's `user_keys`, int64 [B], about a user or an item
    counted: Tensor  # bool [B], False for padding rows, which make the size a multiple of the processes
