"""A target that a draft is trained against."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Self

from torch import Tensor, nn
from transformers import PreTrainedModel

from padrec.decoding.layers.cached_layers import LAST_LAYER, joined_features, layer_numbers
from padrec.targets.decoder_layers import CompiledLayers


class FrozenTarget(nn.Module):
    """Holds a target without training, saving or loading it.

    Its weights stay out of `state_dict`, gradients and train mode. Loading stays strict for everything else: a state
    dict gets the target's own weights before it is loaded, so missing keys of the draft are still errors.

    Args:
        model: the target.
        fingerprint: of the target's weights.
        compile: compile the layers; see `CompiledLayers`.
    """

    def __init__(self, model: PreTrainedModel, fingerprint: str, compile: bool = False) -> None:
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        self.fingerprint = fingerprint
        self._compiled = CompiledLayers(model) if compile else nullcontext()
        self.register_state_dict_post_hook(_drop_weights)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_keep_weights)  # type: ignore[no-untyped-call]
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode."""
        return super().train(False)

    def forward(self, tokens: Tensor, positions: Tensor | None = None, visible: Tensor | None = None) -> Tensor:
        """Features after the final norm, `[B, T, d]`.

        Args:
            tokens: right-padded, int64 `[B, T]`.
            positions: their places in the text, int64 `[B, T]`; None for 0 … T-1.
            visible: which tokens each one attends to, bool `[B, 1, T, T]`; None for itself and all before it.
        """
        with self._compiled:
            features: Tensor = self.model.base_model(
                input_ids=tokens, position_ids=positions, attention_mask=visible, use_cache=False
            ).last_hidden_state
        return features

    def features(self, tokens: Tensor, layers: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Features of tokens `[B, T]` after the final norm, `[B, T, d]`, and joined ones of k layers, `[B, T, k d]`.

        For the numbers of layers see `CachedLayers.open`.
        """
        if tuple(layers) == LAST_LAYER:
            last = self(tokens)
            return last, last
        with self._compiled:
            states = self.model.base_model(input_ids=tokens, use_cache=False, output_hidden_states=True).hidden_states
        numbers = layer_numbers(layers, len(states) - 1)
        return states[-1], joined_features(dict(enumerate(states)), numbers)

    def embed(self, tokens: Tensor) -> Tensor:
        """The target's embeddings `[*, d]` of tokens `[*]`."""
        embeddings: Tensor = self.model.get_input_embeddings()(tokens)
        return embeddings

    def logits(self, features: Tensor) -> Tensor:
        """The target's logits `[*, V]` for features `[*, d]`."""
        logits: Tensor = self.model.get_output_embeddings()(features)
        return logits


def _drop_weights(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Mapping[str, Any]) -> None:
    for name in [name for name in state if name.startswith(prefix)]:
        del state[name]


def _keep_weights(module: nn.Module, state: dict[str, Any], prefix: str, *arguments: object) -> None:
    # The model's own state dict: the wrapper's is empty.
    assert isinstance(module, FrozenTarget)
    state.update({f"{prefix}model.{name}": value for name, value in module.model.state_dict().items()})
