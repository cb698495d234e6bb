"""Heads that predict the tokens after a draft pass without further passes."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn


class SequentialHeads(nn.Module):
    """Low-rank heads on a pass's output that depend on the tokens since (Hydra heads, arXiv 2402.05109).

        z_0 = V h,   z_j = z_{j-1} + M_j e(x_j)      h: output of the pass, x_j: j-th token after what it predicts
        f̂_j = h + U_j SiLU(z_j)                          j = 1 … n
        u   = W [e(x); h] + b + Q SiLU(z)                input of the next pass, which replaces W [e(x); f] + b

    At initialisation U and Q are 0: every f̂_j is h.

    Args:
        hidden_size: d, of h and e.
        n_heads: n, tokens after the one that h itself predicts.
        rank: r, size of z.
        gradient: share of the heads' gradients that reaches h, in [0, 1]: whole ones spoil what h itself predicts.
    """

    def __init__(self, hidden_size: int, n_heads: int, rank: int, gradient: float = 0.1) -> None:
        super().__init__()
        self.feature = nn.Linear(hidden_size, rank, bias=False)
        self.tokens = nn.ModuleList(nn.Linear(hidden_size, rank, bias=False) for _ in range(n_heads))
        self.outputs = nn.ModuleList(nn.Linear(rank, hidden_size, bias=False) for _ in range(n_heads))
        self.fusion = nn.Linear(rank, hidden_size, bias=False)
        for zero in (*self.outputs, self.fusion):
            nn.init.zeros_(zero.weight)
        self._gradient = gradient

    def forward(self, features: Tensor, embeddings: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Predict along sequences in which a pass may have been at every position.

        Args:
            features: h of a pass at each position, `[B, T, d]`.
            embeddings: e of the token that each position's input holds, `[B, T, d]`: the j-th since a pass j before it.

        Yields:
            For j = 0 … n: f̂_j at each position from the pass j positions before it, `[B, T, d]`, and SiLU(z_j),
            `[B, T, r]`. The first j positions have no such pass.
        """
        light = torch.lerp(features.detach(), features, self._gradient)
        sums: Tensor = self.feature(light)
        yield features, nn.functional.silu(sums)
        for token, output in zip(self.tokens, self.outputs, strict=True):
            light, sums = light.roll(1, 1), sums.roll(1, 1) + token(embeddings)
            hidden = nn.functional.silu(sums)
            yield light + output(hidden), hidden
