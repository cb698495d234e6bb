"""Layers in which a token that is not finite reaches only those that see it."""

import torch
from torch import Tensor

from padrec.decoding.layers.cached_layers import LayerSession
from padrec.decoding.layers.placement import Placement, visible_columns


class IsolatedColumns:
    """A `LayerSession` of attention functions that add their mask.

    Such functions also read the columns that a token does not see, with weight 0, and 0 · NaN is NaN. So the cache must
    hold finite numbers only (the session stores 0 for others), and this remembers which columns are of tokens that were
    not finite: the outputs of those that see them are NaN. Kernels need neither, see `rotate_kernel`.
    """

    def __init__(self, session: LayerSession, batch: int, capacity: int, device: torch.device) -> None:
        self._session = session
        self._not_finite = torch.zeros(batch, capacity, dtype=torch.bool, device=device)

    def __call__(self, hidden: Tensor, placement: Placement) -> tuple[Tensor, Tensor]:
        """See `LayerSession.__call__`."""
        outputs, features = self._session(hidden, placement)
        place = torch.arange(hidden.shape[1], device=hidden.device)
        columns = placement.lengths[:, None] + placement.first + place
        self._not_finite.scatter_(1, columns, ~outputs.isfinite().all(-1))
        seen = visible_columns(placement, self._not_finite.shape[1]) & self._not_finite[:, None]  # [B, M, S]
        return outputs.masked_fill(seen.any(-1, keepdim=True), torch.nan), features

    def keep(self, lengths: Tensor, path: Tensor) -> None:
        """See `LayerSession.keep`."""
        self._session.keep(lengths, path)
        place = torch.arange(path.shape[1], device=path.device)
        kept = self._not_finite.gather(1, lengths[:, None] + path)
        self._not_finite.scatter_(1, lengths[:, None] + place, kept)
