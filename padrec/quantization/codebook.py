"""One slot's learnt codes."""

import torch
from torch import Tensor, nn

from padrec.quantization.k_means import squared_distances
from padrec.quantization.sinkhorn import sinkhorn


class Codebook(nn.Module):
    """The code vectors of one slot of an RQ-VAE.

    Args:
        n_codes: K.
        dimension: of a code vector, e.
        epsilon: choose codes in training by Sinkhorn with this weight of the entropy; 0 takes the nearest code.
        iterations: of Sinkhorn.
    """

    def __init__(self, n_codes: int, dimension: int, epsilon: float = 0.0, iterations: int = 50) -> None:
        super().__init__()
        # An embedding rather than a bare parameter: weight decay spares embeddings.
        self.vectors = nn.Embedding(n_codes, dimension)
        self.epsilon = epsilon
        self.iterations = iterations

    def choose(self, residuals: Tensor) -> Tensor:
        """The codes of residuals, int64 `[m]`.

        Training may balance the codes over the batch; outside of it an item's code depends on the item alone.

        Args:
            residuals: `[m, e]`.
        """
        with torch.no_grad():
            distances = squared_distances(residuals, self.vectors.weight)  # [m, K]
            if self.training and self.epsilon > 0:
                return sinkhorn(distances, self.epsilon, self.iterations).argmax(1)
            return distances.argmin(1)

    @torch.no_grad()
    def restart(self, residuals: Tensor, uses: Tensor, generator: torch.Generator) -> Tensor:
        """Move the codes that were never used onto random residuals.

        Args:
            residuals: where items are now, `[m, e]`.
            uses: how often each code was chosen, int64 `[K]`.
            generator: chooses the residuals, on the CPU.

        Returns:
            The codes that were moved, int64.
        """
        dead = (uses == 0).nonzero().flatten()
        chosen = torch.randperm(len(residuals), generator=generator)[: len(dead)]
        dead = dead[: len(chosen)]
        self.vectors.weight[dead] = residuals[chosen.to(residuals.device)]
        return dead
