"""A loss that keeps items apart where a quantizer would give them the same codes."""

import torch
from torch import Tensor

# Rows whose distances to all others are in memory at a time.
_ROWS = 1024
# Of the margin: what lies closer is one item twice, or as good as that, and cannot be pushed apart.
_EQUAL = 1e-3


def separation_loss(latents: Tensor, margin: Tensor | float) -> Tensor:
    """How much too close items are: mean_i max(0, log(margin / distance of i to its nearest different neighbour)).

    The estimate of entropy by nearest neighbours that spreads vectors out before quantization (Sablayrolles et al.,
    *Spreading Vectors for Similarity Search*, 2019, equation 2), cut off at a margin: items that are far enough apart
    stay where their meaning puts them.

    Args:
        latents: `[m, e]`.
        margin: distance that is far enough, not negative.

    Returns:
        Scalar; 0 where no item has a neighbour nearer than that. Items at a thousandth of the margin or less count as
        equal: they are no neighbours of one another.
    """
    neighbours, distances = [], []
    with torch.no_grad():
        for rows in latents.split(_ROWS):
            # Differences, not products: rounding would count as distance between equal items.
            found = torch.cdist(rows, latents, compute_mode="donot_use_mm_for_euclid_dist")  # [rows, m]
            nearest = found.masked_fill(found <= _EQUAL * margin, torch.inf).min(1)
            neighbours.append(nearest.indices)
            distances.append(nearest.values)
    near = torch.cat(distances) < margin
    pairs = latents[near] - latents[torch.cat(neighbours)[near]]  # [near, e]
    return torch.log(margin / pairs.norm(dim=1)).sum() / len(latents)
