"""The EAGLE-type draft network with PAD-Rec's position-aware part."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, Cache, PretrainedConfig

from padrec.catalog import InputError
from padrec.decoding import additive_mask, can_fuse
from padrec.decoding.layers.transformers_layers import PreallocatedCache
from padrec.drafts.position_aware import PAD_REC, PositionAware, PositionAwareEmbedding


class FeatureDraftNetwork(nn.Module):
    """Predicts the target's next feature from its last one and the token in between.

        f̂_{i+1} = DecoderLayer(ũ_i),   ũ_i = W [e(x_{i+1}); f_i] + b + what PositionAwareEmbedding adds

    One decoder layer of the target's architecture. As in EAGLE (arXiv 2401.15077) it has no norm before its attention
    and no final norm: its output replaces the target's feature after the final norm, which the target's head reads.
    Embedding and head are the target's and not part of this module.

    Args:
        target_config: the target's transformers configuration.
        n_slot_states: number of slots, L + 2.
        n_steps: see `PositionAwareEmbedding`.
        position_aware: form of the position-aware part, or its settings; None for the base draft, which has none.

    Raises:
        InputError: the target's architecture has no decoder layer that can be used alone.
    """

    def __init__(
        self,
        target_config: PretrainedConfig,
        n_slot_states: int,
        n_steps: int,
        position_aware: PositionAware | Mapping[str, Any] | None = PAD_REC,
    ) -> None:
        super().__init__()
        d: int = target_config.hidden_size
        self.hidden_size = d
        self.fusion = nn.Linear(2 * d, d)
        self.position_aware = PositionAwareEmbedding(d, n_slot_states, n_steps, PositionAware.of(position_aware))
        try:
            self.config = _one_layer(target_config)
            donor: Any = AutoModel.from_config(self.config, attn_implementation="sdpa")
            self.layer: nn.Module = donor.layers[0]
            self.layer.input_layernorm = nn.Identity()
            self.rotary: nn.Module = donor.rotary_emb
            works = can_fuse(self.config) or self._reads_by_cache()
        except Exception as error:  # each architecture raises errors of its own
            raise InputError(f"{_refused(target_config)} ({error!r})") from error
        if not works:
            raise InputError(_refused(target_config))

    def _reads_by_cache(self) -> bool:
        """Whether the layer, read token by token with a cache, gives what it gives at once."""
        weight, training = self.fusion.weight, self.layer.training
        hidden = torch.linspace(-1, 1, 2 * self.hidden_size, device=weight.device, dtype=weight.dtype)
        hidden, places = hidden.view(1, 2, -1).cos(), torch.arange(2, device=weight.device)[None]
        self.layer.eval()
        outputs = []
        with torch.no_grad():
            for passes in ([slice(0, 2)], [slice(0, 1), slice(1, 2)]):
                cache = PreallocatedCache(1, 1, 2)
                for part in passes:
                    cache.write_at(places[:, part])
                    mask = additive_mask(places[:, part, None] >= places[:, None], hidden.dtype)
                    outputs.append(self.attend(hidden[:, part], places[:, part], mask, cache)[:, -1])
        self.layer.train(training)
        return torch.allclose(outputs[0], outputs[2], rtol=1e-3, atol=1e-4)

    def forward(
        self,
        embeddings: Tensor,
        features: Tensor,
        slots: Tensor,
        step: int,
        positions: Tensor,
        visible: Tensor,
        cache: Cache,
    ) -> Tensor:
        """Predict features.

        Args:
            embeddings: e(x_{i+1}), `[B, T, d]`.
            features: f_i, or the draft's prediction of it, `[B, T, d]`.
            slots: slot of x_{i+1}, int64 `[B, T]`.
            step: consecutive draft-made features before these inputs; 0 for features of the target.
            positions: i, int64 `[B, T]`.
            visible: cache columns that each query sees, bool `[B or 1, T, S]`.
            cache: stores this layer's keys and values as layer 0 and returns S columns.

        Returns:
            f̂_{i+1}, `[B, T, d]`.
        """
        hidden = self.position_aware(self.fusion, embeddings, features, slots, step)
        return self.attend(hidden, positions, additive_mask(visible, hidden.dtype), cache)

    def attend(self, hidden: Tensor, positions: Tensor, mask: Tensor, cache: Cache) -> Tensor:
        """The decoder layer alone, for inputs `[B, T, d]` and an additive mask `[B or 1, 1, T, S]`."""
        result: Tensor = self.layer(
            hidden,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            position_embeddings=self.rotary(hidden, positions),
        )
        return result


def _refused(config: PretrainedConfig) -> str:
    return (
        f"a draft for a {config.model_type} target: expected a target whose decoder layers have rotary position "
        "embeddings and can be used alone, such as llama, mistral, qwen2, qwen3, gemma, phi3 or olmo2"
    )


def _one_layer(config: PretrainedConfig) -> PretrainedConfig:
    config = copy.deepcopy(config)
    config.num_hidden_layers = 1
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:1]
    # The donor's embedding table is discarded: keep it small.
    config.vocab_size, config.pad_token_id = 8, None
    return config
