"""Training that sees what drafting sees: HASS's context alignment (arXiv 2408.15766) over unrolled draft steps."""

from collections.abc import Iterator

import torch
from torch import Tensor
from transformers import Cache

from padrec.drafts.feature_draft_network import FeatureDraftNetwork


class StreamCache(Cache):
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


def step_mask(length: int, step: int, device: torch.device | None = None) -> Tensor:
    """What a query of one draft step may see of all steps' columns.

    At position t and step s a draft has behind it the target's features up to t - s, then one feature of each step
    1 … s at the positions t - s + 1 … t. So the query sees the columns up to t - s of step 0 and of step i the
    column t - (s - i) alone. Where t is less than s no draft could stand; such positions see only drafted columns and
    must not be trained on.

    Args:
        length: T.
        step: s, from 0.
        device: where the mask is made.

    Returns:
        bool `[T, (s + 1) T]`, the steps' columns one after another.
    """
    row = torch.arange(length, device=device)[:, None]
    column = torch.arange(length, device=device)
    blocks = [column <= row - step]
    blocks += [column == row - (step - i) for i in range(1, step + 1)]
    return torch.cat(blocks, dim=1)


def unroll(
    network: FeatureDraftNetwork, embeddings: Tensor, features: Tensor, slots: Tensor, n_steps: int
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

    Yields:
        f̂_{t+1} of each step, `[B, T, d]`; valid from position s on.
    """
    cache = StreamCache()
    length = embeddings.shape[1]
    positions = torch.arange(length, device=embeddings.device).expand(len(embeddings), -1)
    current = features
    for step in range(n_steps):
        visible = step_mask(length, step, embeddings.device)[None]
        predicted = network(embeddings, current, slots, step, positions, visible, cache)
        yield predicted
        shifted = predicted.detach()[:, :-1]
        # Position 0 has no prediction; it keeps the target's feature, and is not trained on in later steps.
        current = torch.cat([features[:, :1], shifted.to(features.dtype)], dim=1)
