"""Heads that predict the tokens after a draft pass without further passes."""

import torch
from torch import Tensor, nn


class SequentialHeads(nn.Module):
    """Low-rank heads on a pass's output that depend on the tokens since (Hydra heads, arXiv 2402.05109).

        z = V h + Σ_s M_s ē(x_s)        h: output of the last pass; x_s: tokens of an item since, s their slots
        f̂ = h + U_s SiLU(z)             s: slot of the last of them
        u = W [ē(x); h] + b + Q SiLU(z) input of the next pass, which reads x

    Slots count from an item's second token, 1 … n, since passes read first codes. At initialisation U and Q are 0, so
    that every f̂ is h.

    Args:
        hidden_size: d, of h and ē, which is what `FeatureDraftNetwork.embedded` gives.
        n_heads: n, tokens of an item but for the first.
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

    def start(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features h `[*, d]` with the heads' share of the gradient, and V h, `[*, r]`."""
        light = torch.lerp(features.detach(), features, self._gradient)
        return light, self.feature(light)

    def token_sums(self, embeddings: Tensor) -> Tensor:
        """Σ M_s ē(x_s) of items up to each of their tokens, `[*, n + 1, r]`, from the tokens' ē, `[*, n + 1, d]`."""
        added = [token(embeddings[..., slot, :]) for slot, token in enumerate(self.tokens, start=1)]
        return torch.stack([torch.zeros_like(added[0]), *added], -2).cumsum(-2)

    def forward(self, features: Tensor, sums: Tensor) -> Tensor:
        """f̂ after each of an item's tokens but the first, `[*, n, d]`, from h, `[*, n, d]`, and z, `[*, n, r]`."""
        hidden = nn.functional.silu(sums)
        added = [output(hidden[..., head, :]) for head, output in enumerate(self.outputs)]
        return features + torch.stack(added, -2)
