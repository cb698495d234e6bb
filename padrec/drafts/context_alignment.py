"""HASS's context alignment (arXiv 2408.15766): training sees what drafting sees, over unrolled draft steps."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import Cache

from padrec.drafts.feature_draft_network import FeatureDraftNetwork


class StepCache(Cache):
    """Keys and values of all draft steps so far, joined along the columns."""

    def __init__(self) -> None:
        super().__init__(layers=[])
        self._states: dict[int, tuple[list[Tensor], list[Tensor]]] = {}  # by layer

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Append one step's states, `[B, heads, T, head size]`, and return those of all steps of the layer."""
        keys, values = self._states.setdefault(layer_idx, ([], []))
        keys.append(key_states)
        values.append(value_states)
        return torch.cat(keys, dim=2), torch.cat(values, dim=2)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Always 0: positions and masks are passed explicitly."""
        return 0


@dataclass(frozen=True)
class Window:
    """The columns of each row that steps after the first compute; training reads no others.

    Attributes:
        first: first column of each row, int64 `[B]`, or `[1]` for all rows.
        width: W, number of columns.
        length: T, columns of a row, at least W.
    """

    first: Tensor
    width: int
    length: int

    @classmethod
    def whole(cls, length: int, device: torch.device | None = None) -> "Window":
        """All columns."""
        return cls(torch.zeros(1, dtype=torch.long, device=device), length, length)

    @classmethod
    def around(cls, trained: Tensor, n_steps: int) -> "Window":
        """The columns that any of `n_steps` needs for the trained ones, bool `[B, T]`; synchronises the device."""
        length = trained.shape[1]
        column = torch.arange(length, device=trained.device)
        first = torch.where(trained, column, length).amin(1)
        last = torch.where(trained, column, -1).amax(1)  # less than `first` in rows without trained columns
        # In the last step, s = n - 1, the query at t reads column t - (s - 1) of step 1.
        width = int((last - first).clamp(min=0).max()) + 1 + max(0, n_steps - 2)
        if width >= length:
            return cls.whole(length, trained.device)
        return cls((last + 1 - width).clamp(min=0), width, length)

    @property
    def columns(self) -> Tensor:
        """The columns, int64 `[B, W]` or `[1, W]`."""
        return self.first[:, None] + torch.arange(self.width, device=self.first.device)

    def places(self, rows: Tensor) -> Tensor:
        """Convert flat indices `b T + t` into `[B, T]`, int64 `[M]`, to indices into `[B, W]`: `b W + t - first[b]`."""
        row = rows // self.length
        return rows % self.length - self.first[row.clamp(max=len(self.first) - 1)] + row * self.width


def step_mask(columns: Tensor, length: int, step: int) -> Tensor:
    """What the queries of one draft step see of all steps' columns.

    At position t and step s a draft has read the target's features up to t - s and then one feature of each step
    1 … s, at the positions t - s + 1 … t. So the query sees the columns up to t - s of step 0, and only the column
    t - (s - i) of step i. No draft gets to positions t < s; they must not be trained.

    Args:
        columns: t of each query, consecutive, int64 `[B, W]`; steps from 1 on have these columns.
        length: T, columns of step 0.
        step: s, from 0.

    Returns:
        bool `[B, W, T + s W]`, the steps' columns in order.
    """
    place = torch.arange(columns.shape[1], device=columns.device)
    target = torch.arange(length, device=columns.device) <= columns[..., None] - step
    drafted = [(place == place[:, None] - (step - made)).expand(len(columns), -1, -1) for made in range(1, step + 1)]
    return torch.cat([target, *drafted], dim=-1)


def unroll(
    network: FeatureDraftNetwork,
    embeddings: Tensor,
    features: Tensor,
    slots: Tensor,
    n_steps: int,
    window: Window | None = None,
    through_steps: bool = False,
) -> Iterator[Tensor]:
    """Run the draft `n_steps` times over a sequence, each time on its last predictions.

    In step s the query at t reads what step s - 1 predicted for position t, its output at t - 1. Padding on the right
    needs no mask: no earlier position sees it.

    Args:
        network: the draft.
        embeddings: e(x_{t+1}), `[B, T, d]`.
        features: the target's f_t, `[B, T, k d]`.
        slots: slot of x_{t+1}, int64 `[B, T]`.
        n_steps: unrolled steps, at least 1.
        window: columns of the steps from 1 on; None for all.
        through_steps: pass gradients on from a step's inputs to the step that predicted them, as EAGLE-3's
            training-time test does (arXiv 2503.01840).

    Yields:
        f̂_{t+1} of each step, `[B, T, d]` in step 0 and `[B, W, d]` after it; valid from position s on.
    """
    batch, length = slots.shape
    every = Window.whole(length, embeddings.device)
    cache = StepCache()
    embeddings, current, columns = network.embedded(embeddings), network.reduced(features), every.columns
    for step in range(n_steps):
        if step == 1:
            columns = (window or every).columns
            rows = torch.arange(batch, device=columns.device)[:, None]
            embeddings, slots, current = (values[rows, columns] for values in (embeddings, slots, current))
        mask, positions = step_mask(columns, length, step), columns.expand(batch, -1)
        predicted = network(embeddings, current, slots, step, positions, mask, cache)
        yield predicted
        # The first column has no prediction; nothing trained reads it in later steps.
        passed_on = predicted if through_steps else predicted.detach()
        current = torch.cat([current[:, :1], passed_on[:, :-1].to(current.dtype)], dim=1)
