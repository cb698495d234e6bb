"""The batches that dataloaders yield."""

from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor


@dataclass
class TensorBatch:
    """A batch whose fields are all tensors with one row per example."""

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """Return the batch on another device."""
        tensors: dict[str, Tensor] = {field.name: getattr(self, field.name) for field in fields(self)}
        return type(self)(**{name: tensor.to(device, non_blocking=non_blocking) for name, tensor in tensors.items()})

    def rows(self, which: Tensor) -> Self:
        """Return the rows selected by a mask, bool `[B]`, or by indices."""
        return type(self)(**{field.name: getattr(self, field.name)[which] for field in fields(self)})


@dataclass
class SequenceBatch(TensorBatch):
    """Sequences `<bos> item item …` to train on, with a template's text if there is one, padded on the right.

    Attributes:
        tokens: token ids, int64 `[B, T]`.
        slots: the slot of every token, int64 `[B, T]`; that of other tokens on padding.
        lengths: tokens in each row without padding, int64 `[B]`.
        supervised: bool `[B, T]`, True for tokens to predict from those before; never `<bos>`, text or padding. A row
            without any only keeps the processes in step.
        items: index of the item that every code and separator belongs to, int64 `[B, T]`; -1 for other tokens.
    """

    tokens: Tensor
    slots: Tensor
    lengths: Tensor
    supervised: Tensor
    items: Tensor


@dataclass
class PromptBatch(TensorBatch):
    """Histories `<bos> item … item` after which to decode a list, padded on the right.

    A prompt ends with an item, including its separator, or with a template's text: the next token is a code of slot 0.

    Attributes:
        tokens: token ids, int64 `[B, P]`.
        slots: the slot of every token, int64 `[B, P]`; that of other tokens on padding.
        lengths: tokens in each row without padding, int64 `[B]`.
        users: row of the user in the datamodule's `user_keys`, int64 `[B]`; -1 for an unknown user.
        history: item indices of the prompt, int64 `[B, H]`, padded with -1 on the right.
        relevant: distinct leaves of the ground truth, int64 `[B, R]`, padded with -1 on the right.
        relevant_items: distinct items of the ground truth, int64 `[B, R]`, padded with -1 on the right.
        counted: bool `[B]`, False for padding rows, which make the size a multiple of the processes.
    """

    tokens: Tensor
    slots: Tensor
    lengths: Tensor
    users: Tensor
    history: Tensor
    relevant: Tensor
    relevant_items: Tensor
    counted: Tensor


@dataclass
class TextPromptBatch(TensorBatch):
    """Prompts of text to continue, padded on the right.

    Attributes:
        tokens: token ids, int64 `[B, P]`.
        lengths: tokens in each row without padding, int64 `[B]`.
        users: row of each prompt in the datamodule's `user_keys`, int64 `[B]`, whether it is about a user or an item.
        counted: bool `[B]`, False for padding rows, which make the size a multiple of the processes.
    """

    tokens: Tensor
    lengths: Tensor
    users: Tensor
    counted: Tensor
