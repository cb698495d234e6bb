"""The EAGLE-type draft: predicts the target's next feature from its last one and the token in between."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, Cache, PretrainedConfig

from padrec.decoding import additive_mask
from padrec.drafts.position_aware import PositionAwareEmbedding


class FeatureDraftNetwork(nn.Module):
    """Fusion, the position-aware part and one decoder layer of the target's own architecture.

        u = W [e(x_{i+1}); f_i] + b
        f̂_{i+1} = DecoderLayer(position_aware(u))

    As in EAGLE (arXiv 2401.15077) the layer has no norm before its attention, and no final norm follows: its output
    stands for the target's feature behind the final norm, which the target's head reads. Embedding and head are the
    target's own and not part of this module.

    Args:
        target_config: the target's transformers configuration.
        n_slot_states: slots that occur, L + 2.
        n_steps: draft steps told apart by step embeddings.
        slot_embeddings: see `PositionAwareEmbedding`.
        step_embeddings: see `PositionAwareEmbedding`.
    """

    def __init__(
        self,
        target_config: PretrainedConfig,
        n_slot_states: int,
        n_steps: int,
        *,
        slot_embeddings: bool = True,
        step_embeddings: bool = True,
    ) -> None:
        super().__init__()
        d: int = target_config.hidden_size
        self.hidden_size = d
        self.fusion = nn.Linear(2 * d, d)
        self.position_aware = PositionAwareEmbedding(
            d, n_slot_states, n_steps, slot_embeddings=slot_embeddings, step_embeddings=step_embeddings
        )
        self.config = _one_layer(target_config)
        donor: Any = AutoModel.from_config(self.config, attn_implementation="sdpa")
        self.layer: nn.Module = donor.layers[0]
        self.layer.input_layernorm = nn.Identity()
        self.rotary: nn.Module = donor.rotary_emb

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
            features: f_i, or the draft's own prediction of it, `[B, T, d]`.
            slots: slot of x_{i+1}, int64 `[B, T]`.
            step: number of draft-made features behind these inputs.
            positions: i, int64 `[B, T]`.
            visible: what each query sees of the cache's columns, bool `[B or 1, T, S]`.
            cache: takes this layer's keys and values as layer 0, and returns S columns.

        Returns:
            f̂_{i+1}, `[B, T, d]`.
        """
        fused = self.fusion(torch.cat([embeddings, features], dim=-1))
        hidden = self.position_aware(fused, slots, step)
        return self.attend(hidden, positions, additive_mask(visible, hidden.dtype), cache)

    def attend(self, hidden: Tensor, positions: Tensor, mask: Tensor, cache: Cache) -> Tensor:
        """The decoder layer alone, on inputs `[B, T, d]`, with an additive mask `[B or 1, 1, T, S]`."""
        result: Tensor = self.layer(
            hidden,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            position_embeddings=self.rotary(hidden, positions),
        )
        return result


def _one_layer(config: PretrainedConfig) -> PretrainedConfig:
    config = copy.deepcopy(config)
    config.num_hidden_layers = 1
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:1]
    # The donor's embedding table is thrown away: keep it from taking memory for a moment.
    config.vocab_size, config.pad_token_id = 8, None
    return config
