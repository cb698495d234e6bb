"""A draft step without attention."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class GatedRecurrence(nn.Module):
    """Predicts the next feature from the last one and the token in between, without attention.

        f̂_{i+1} = a ⊙ sigmoid(g),   [a; g] = A e(x_{i+1}) + B f̂_i + b

    A draft step that costs one small product, as in recurrent drafters (arXiv 2403.09919).

    Args:
        hidden_size: d.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.maps = nn.Linear(2 * hidden_size, 2 * hidden_size)

    def forward(self, embeddings: Tensor, features: Tensor) -> Tensor:
        """Predict f̂_{i+1} from e(x_{i+1}) and f̂_i, all `[*, d]`."""
        return functional.glu(self.maps(torch.cat([embeddings, features], dim=-1)), dim=-1)
