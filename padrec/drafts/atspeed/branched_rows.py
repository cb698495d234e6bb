"""Training rows with items that branch off from them, read in one pass."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class BranchedRows:
    """Rows of tokens, and after a prompt in each of them K items side by side.

    An item attends to its row's prompt and to its own codes; the row's other tokens do not see it. Last codes predict
    nothing and are not read.
    """

    tokens: Tensor  # int64 [B, S], S = T + K (L - 1)
    positions: Tensor  # places in the text, int64 [B, S]
    visible: Tensor  # which tokens each one attends to, bool [B, 1, S, S]
    predictors: Tensor  # places in the flat rows, b S + column, that predict the items' codes, int64 [B, K, L]

    @classmethod
    def of(cls, tokens: Tensor, prompt_lengths: Tensor, items: Tensor) -> "BranchedRows":
        """Append items, code tokens `[B, K, L]`, to right-padded rows `[B, T]`, all int64.

        Each row's items follow a prompt of its first tokens, at least one; `prompt_lengths` are `[B]`.
        """
        (batch, width), (_, n_items, n_codes), device = tokens.shape, items.shape, tokens.device
        column = torch.arange(width + n_items * (n_codes - 1), device=device)  # [S]
        item = (column - width).div(max(1, n_codes - 1), rounding_mode="floor").where(column >= width, -1)
        depth = (column - width) % max(1, n_codes - 1)
        in_row, lengths = column < width, prompt_lengths[:, None]
        in_prompt = column < lengths  # [B, S]
        before = column <= column[:, None]  # [S, S]
        same = item == item[:, None]  # the row's tokens count as one item
        visible = (before & same) | (~in_row[:, None] & in_prompt[:, None])  # [B, S, S]
        codes = width + torch.arange(n_items * (n_codes - 1), device=device).view(n_items, n_codes - 1)
        rows = torch.arange(batch, device=device)[:, None, None]
        last = (lengths - 1).expand(-1, n_items)[..., None]  # [B, K, 1]
        return cls(
            tokens=torch.cat([tokens, items[..., :-1].flatten(1)], 1),
            positions=torch.where(in_row, column, lengths + depth),
            visible=visible[:, None],
            predictors=torch.cat([last, codes.expand(batch, -1, -1)], -1) + rows * len(column),
        )
