"""Training that sees what drafting sees: HASS's context alignment (arXiv 2408.15766) over unrolled draft steps."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import Cache

from padrec.drafts.feature_draft_network import FeatureDraftNetwork


class StepCache(Cache):
    """Keys and values of every draft step so far, one after another along the columns."""

    def __init__(self) -> None:
        super().__init__(layers=[])
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Append one step's states, `[B, heads, T, head size]`, and return those of all steps."""
        self._keys.append(key_states)
        self._values.append(value_states)
        return torch.cat(self._keys, dim=2), torch.cat(self._values, dim=2)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Always 0: positions and masks are passed explicitly."""
        return 0


@dataclass(frozen=True)
class Window:
    """The columns of each row on which draft steps behind the first are run: nothing trained needs the others.

    Attributes:
        first: the first one of each row, int64 `[B]`, or `[1]` for all rows.
        width: W, their number.
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
        """The columns that those which are trained, bool `[B, T]`, need in any of `n_steps`; waits for the device."""
        length = trained.shape[1]
        column = torch.arange(length, device=trained.device)
        first = torch.where(trained, column, length).amin(1)
        last = torch.where(trained, column, -1).amax(1)  # before the first one where none is trained
        # In the last step, s = n - 1, the query at t reads of step 1 the column t - (s - 1).
        width = int((last - first).clamp(min=0).max()) + 1 + max(0, n_steps - 2)
        if width >= length:
            return cls.whole(length, trained.device)
        return cls((last + 1 - width).clamp(min=0), width, length)

    @property
    def columns(self) -> Tensor:
        """The columns themselves, int64 `[B, W]` or `[1, W]`."""
        return self.first[:, None] + torch.arange(self.width, device=self.first.device)

    def places(self, rows: Tensor) -> Tensor:
        """Where places `b T + t` of `[B, T]`, int64 `[M]`, stand in `[B, W]`: `b W + t - first[b]`."""
        row = rows // self.length
        return rows % self.length - self.first[row.clamp(max=len(self.first) - 1)] + row * self.width


def step_mask(columns: Tensor, length: int, step: int) -> Tensor:
    """What the queries of one draft step may see of all steps' columns.

    At position t and step s a draft has behind it the target's features up to t - s, then one feature of each step
    1 … s at the positions t - s + 1 … t. So the query sees the columns up to t - s of step 0 and of step i the
    column t - (s - i) alone. Where t is less than s no draft could stand; such positions see only drafted columns and
    must not be trained on.

    Args:
        columns: t of each query, one after another, int64 `[B, W]`; steps from 1 on have these columns.
        length: T, columns of step 0.
        step: s, from 0.

    Returns:
        bool `[B, W, T + s W]`, the steps' columns one after another.
    """
    place = torch.arange(columns.shape[1], device=columns.device)
    blocks = [torch.arange(length, device=columns.device) <= columns[..., None] - step]
    own = [place == place[:, None] - (step - made) for made in range(1, step + 1)]
    return torch.cat([*blocks, *(block.expand(len(columns), -1, -1) for block in own)], dim=-1)


def unroll(
    network: FeatureDraftNetwork,
    embeddings: Tensor,
    features: Tensor,
    slots: Tensor,
    n_steps: int,
    window: Window | None = None,
) -> Iterator[Tensor]:
    """Run the draft `n_steps` times over a sequence, each time on what the time before has predicted.

    In step s the query at t reads the feature that step s - 1 predicted for position t, which is its output at
    t - 1, without gradient. Padding on the right needs no mask: no earlier position sees it.

    Args:
        network: the draft.
        embeddings: e(x_{t+1}), `[B, T, d]`.
        features: the target's f_t, `[B, T, d]`.
        slots: slot of x_{t+1}, int64 `[B, T]`.
        n_steps: unrolled steps, at least 1.
        window: where steps from 1 on are run; None runs them everywhere.

    Yields:
        f̂_{t+1} of each step, `[B, T, d]` in step 0, `[B, W, d]` in the window of all others; valid from position s on.
    """
    batch, length = slots.shape
    every = Window.whole(length, embeddings.device)
    cache = StepCache()
    mask = step_mask(every.columns, length, 0)
    predicted = network(embeddings, features, slots, 0, every.columns.expand(batch, -1), mask, cache)
    yield predicted
    if n_steps == 1:
        return
    columns = (window or every).columns
    positions = columns.expand(batch, -1)
    # Position 0 has no prediction; it keeps the target's feature, and is not trained on in later steps.
    made = torch.cat([features[:, :1], predicted.detach()[:, :-1].to(features.dtype)], dim=1)
    embeddings, slots, current = _in(positions, embeddings), slots.gather(1, positions), _in(positions, made)
    for step in range(1, n_steps):
        mask = step_mask(columns, length, step)
        predicted = network(embeddings, current, slots, step, positions, mask, cache)
        yield predicted
        # The window's first column has no prediction either, which nothing trained reads.
        current = torch.cat([current[:, :1], predicted.detach()[:, :-1].to(features.dtype)], dim=1)


def _in(columns: Tensor, values: Tensor) -> Tensor:
    """The columns `[B, W]` of values `[B, T, d]`: `[B, W, d]`."""
    return values.gather(1, columns[..., None].expand(-1, -1, values.shape[-1]))
