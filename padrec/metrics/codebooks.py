"""How well semantic IDs use their codebooks and tell items apart."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from padrec.catalog import InputError
from padrec.metrics.exact_metric import ExactMetric


class CodebookQuality(ExactMetric):
    """Codebook use, perplexity and reconstruction error by slot, and collisions, over a whole catalog.

    Each item counts once even if a distributed sampler repeats it.

    - `codes_used/slot_<l>`: share of the slot's codes in use.
    - `perplexity/slot_<l>`: exp of the entropy (nats) of the slot's code frequencies, at most the number of codes.
    - `reconstruction/slot_<l>`: mean over items of the squared error per value after slots 0 … l.
    - `collisions`: number of items minus number of distinct semantic IDs.

    Args:
        n_items: items in the catalog.
        codebook_sizes: codes in each slot.

    Example:
        >>> import torch
        >>> metric = CodebookQuality(n_items=3, codebook_sizes=[2, 4])
        >>> metric.update(torch.arange(3), torch.tensor([[0, 1], [1, 2], [1, 2]]), torch.zeros(3, 2))
        >>> {name: round(value.item(), 3) for name, value in metric.compute().items()}
        {'codes_used/slot_0': 1.0, 'perplexity/slot_0': 1.89, 'reconstruction/slot_0': 0.0,
         'codes_used/slot_1': 0.5, 'perplexity/slot_1': 1.89, 'reconstruction/slot_1': 0.0, 'collisions': 1.0}
    """

    codes: Tensor
    errors: Tensor

    def __init__(self, n_items: int, codebook_sizes: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.codebook_sizes = tuple(codebook_sizes)
        shape = (n_items, len(self.codebook_sizes))
        # One row per item: the maximum over processes takes the value of a process that saw the item.
        self.add_state("codes", torch.full(shape, -1), dist_reduce_fx="max")
        self.add_state("errors", torch.full(shape, -1.0, dtype=torch.float64), dist_reduce_fx="max")

    def update(self, items: Tensor, codes: Tensor, errors: Tensor) -> None:
        """Add a batch of items.

        Args:
            items: rows of the catalog, int64 `[B]`.
            codes: semantic IDs, int64 `[B, L]`.
            errors: squared reconstruction error per value from slots 0 … l, `[B, L]`.
        """
        expected = (len(items), len(self.codebook_sizes))
        if codes.shape != expected or errors.shape != expected:
            raise InputError(f"codes {list(codes.shape)} and errors {list(errors.shape)}, expected {list(expected)}")
        self.codes[items] = codes
        self.errors[items] = errors.double()

    def compute(self) -> dict[str, Tensor]:
        """The values by name over the items seen so far, float64 scalars."""
        seen = (self.codes >= 0).all(1)
        codes, errors = self.codes[seen], self.errors[seen]
        found: dict[str, Tensor] = {}
        for slot, size in enumerate(self.codebook_sizes):
            shares = torch.bincount(codes[:, slot], minlength=size) / torch.tensor(len(codes), dtype=torch.float64)
            found[f"codes_used/slot_{slot}"] = (shares > 0).double().mean()
            found[f"perplexity/slot_{slot}"] = torch.special.entr(shares).sum().exp()
            found[f"reconstruction/slot_{slot}"] = errors[:, slot].mean()
        collisions = len(codes) - len(torch.unique(codes, dim=0))
        return found | {"collisions": torch.tensor(collisions, dtype=torch.float64, device=codes.device)}
