"""What the dataloaders yield."""

from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor


@dataclass
class TensorBatch:
    """A batch whose fields are all tensors with one row per example."""

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """The same batch on another device."""
        tensors: dict[str, Tensor] = {field.name: getattr(self, field.name) for field in fields(self)}
        return type(self)(**{name: tensor.to(device, non_blocking=non_blocking) for name, tensor in tensors.items()})

    def rows(self, which: Tensor) -> Self:
        """The rows picked by a mask, bool `[B]`, or by indices."""
        return type(self)(**{field.name: getattr(self, field.name)[which] for field in fields(self)})


@dataclass
class SequenceBatch(TensorBatch):
    """Sequences `<bos> item item …` to train on, with text among them where a template has it, padded on the right.

    Attributes:
        tokens: token ids, int64 `[B, T]`.
        slots: the slot of every token, int64 `[B, T]`; the slot of any other token on padding.
        lengths: tokens in each row without padding, int64 `[B]`.
        supervised: bool `[B, T]`, True where the token is to be predicted from those before it; never at `<bos>`, text
            and padding. A row without any True only evens out the processes.
    """

    tokens: Tensor
    slots: Tensor
    lengths: Tensor
    supervised: Tensor


@dataclass
class PromptBatch(TensorBatch):
    """Histories `<bos> item … item` to decode a list after, padded on the right.

    A prompt ends with an item, its separator included, or with a template's text: the next token is a code of slot 0.

    Attributes:
        tokens: token ids, int64 `[B, P]`.
        slots: the slot of every token, int64 `[B, P]`; the slot of any other token on padding.
        lengths: tokens in each row without padding, int64 `[B]`.
        users: row of the user in the datamodule's `user_keys`, int64 `[B]`; -1 for a user it does not know.
        history: item indices of the prompt, int64 `[B, H]`, -1 behind the last.
        relevant: distinct leaves of the ground truth, int64 `[B, R]`, -1 behind the last.
        relevant_items: distinct items of the ground truth, int64 `[B, R]`, -1 behind the last.
        counted: bool `[B]`, False for rows that only fill the set up to a multiple of the processes.
    """

    tokens: Tensor
    slots: Tensor
    lengths: Tensor
    users: Tensor
    history: Tensor
    relevant: Tensor
    relevant_items: Tensor
    counted: Tensor
