"""Tokens that continue prompts in several ways at once."""

from dataclasses import dataclass

import torch
from torch import Tensor

from padrec.decoding.layers.placement import Placement
from padrec.decoding.layers.prompts import Prompts


@dataclass(frozen=True)
class Branches:
    """Tokens that continue each prompt in several ways at once.

    Attributes:
        tokens: int64 `[B, N]`.
        depths: tokens between the prompt and each of them on its own way, int64 `[N]`.
        seen: bool `[B, N, R]`; `[b, i, j]` says that token i sees the j-th token behind the prompt. It sees itself.
        first: tokens behind the prompt that earlier passes have read; R is at least `first + N`.
    """

    tokens: Tensor
    depths: Tensor
    seen: Tensor
    first: int = 0


def behind_prompts(prompts: Prompts, branches: Branches) -> tuple[Tensor, Placement]:
    """Each prompt's tokens and its branches right behind them, `[B, P + N]`, and where they stand.

    What stands behind a row's branches is as wide as its prompt's padding; nothing sees it.
    """
    lengths, (width, n_branches) = prompts.lengths[:, None], (prompts.tokens.shape[1], branches.tokens.shape[1])
    column = torch.arange(width + n_branches, device=lengths.device)
    behind = column - lengths  # [B, P + N]
    in_prompt, at = behind < 0, behind.clamp(0, n_branches - 1)
    prompt_tokens = torch.nn.functional.pad(prompts.tokens, (0, n_branches))
    tokens = torch.where(in_prompt, prompt_tokens, branches.tokens.gather(1, at))
    positions = torch.where(in_prompt, column, lengths + branches.depths[at])
    before = column <= column[:, None]  # [P + N, P + N]
    seen = branches.seen.gather(1, at[..., None].expand(-1, -1, branches.seen.shape[-1]))
    seen = seen.gather(2, at[:, None].expand(-1, len(column), -1))  # [B, P + N, P + N]
    is_branch = ((behind >= 0) & (behind < n_branches))[:, None]
    visible = torch.where(in_prompt[..., None], before, in_prompt[:, None] | (seen & is_branch))
    return tokens, Placement(torch.zeros_like(prompts.lengths), positions, 0, visible, prompts.layout(n_branches))
