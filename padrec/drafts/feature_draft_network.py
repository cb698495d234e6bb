"""The EAGLE-type draft network with PAD-Rec's position-aware part."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, Cache, PretrainedConfig

from padrec.catalog import InputError
from padrec.decoding import additive_mask, can_fuse
from padrec.decoding.layers.cached_layers import LAST_LAYER, layer_numbers
from padrec.decoding.layers.transformers_layers import PreallocatedCache
from padrec.drafts.position_aware import PAD_REC, PositionAware, PositionAwareEmbedding
from padrec.drafts.sequential_heads import SequentialHeads

# Added to mean squares, far below those of embeddings; without it each precision would add a number of its own.
_EPS = 1e-6


class FeatureDraftNetwork(nn.Module):
    """Predicts the target's next feature from its last one and the token in between.

        f̂_{i+1} = DecoderLayer(ũ_i),   ũ_i = W [ē(x_{i+1}); f_i] + b + what PositionAwareEmbedding adds

    ē is the target's embedding e divided by its root mean square. Features come from the target's final norm and are
    often tens of times larger than embeddings, so that W would hardly learn what to read of e.

    One decoder layer of the target's architecture, or several. As in EAGLE (arXiv 2401.15077) the first has no norm
    before its attention, and there is no final norm: the output replaces the target's feature after the final norm,
    which the target's head reads. Embedding and head are the target's and not part of this module.

    With features of several target layers, f_i is a linear map of them for features of the target, at first the one of
    the last layer named. Further decoder layers are the identity at first. So a larger draft can start exactly where a
    smaller one ended.

    Args:
        target_config: the target's transformers configuration.
        n_slot_states: number of slots, L + 2.
        n_steps: see `PositionAwareEmbedding`.
        position_aware: form of the position-aware part, or its settings; None for the base draft, which has none.
        n_layers: decoder layers, at least 1.
        feature_layers: k target layers whose hidden states it reads, see `CachedLayers.open`.
        normed_embeddings: False for e in place of ē.

    Attributes:
        layers: the decoder layers.
        norm: after the last one; the identity in this class.
        heads: predict further tokens without a pass; None in this class, see `ItemDraftNetwork`.

    Raises:
        InputError: the target's architecture has no decoder layer that can be used alone, or lacks a feature layer.
    """

    def __init__(
        self,
        target_config: PretrainedConfig,
        n_slot_states: int,
        n_steps: int,
        position_aware: PositionAware | Mapping[str, Any] | None = PAD_REC,
        *,
        n_layers: int = 1,
        feature_layers: Sequence[int] = LAST_LAYER,
        normed_embeddings: bool = True,
    ) -> None:
        super().__init__()
        d: int = target_config.hidden_size
        layer_numbers(feature_layers, target_config.num_hidden_layers)  # raises
        self.hidden_size, self.feature_layers, self.normed_embeddings = d, tuple(feature_layers), normed_embeddings
        self.reduction = nn.Identity() if len(feature_layers) == 1 else _last_of(len(feature_layers), d)
        self.fusion = nn.Linear(2 * d, d)
        self.position_aware = PositionAwareEmbedding(d, n_slot_states, n_steps, PositionAware.of(position_aware))
        try:
            self.config = _shallow(target_config, n_layers)
            donor: Any = AutoModel.from_config(self.config, attn_implementation="sdpa")
            self.layer: nn.Module = donor.layers[0]
            self.layer.input_layernorm = nn.Identity()
            self.further_layers = nn.ModuleList(_identity_at_first(layer) for layer in donor.layers[1:])
            self.norm: nn.Module = nn.Identity()
            self.heads: SequentialHeads | None = None
            self.rotary: nn.Module = donor.rotary_emb
            works = can_fuse(self.config) or self._reads_by_cache()
        except Exception as error:  # each architecture raises errors of its own
            raise InputError(f"{_refused(target_config)} ({error!r})") from error
        if not works:
            raise InputError(_refused(target_config))

    @property
    def item_length(self) -> int | None:
        """Tokens of an item, for networks with heads; see `Draft`."""
        return None if self.heads is None else 1 + len(self.heads.tokens)

    @property
    def layers(self) -> list[nn.Module]:
        """See the class."""
        return [self.layer, *self.further_layers]

    def embedded(self, embeddings: Tensor) -> Tensor:
        """What the fusion reads of the target's embeddings `[*, d]`."""
        if not self.normed_embeddings:
            return embeddings
        return nn.functional.rms_norm(embeddings, embeddings.shape[-1:], eps=_EPS)

    def reduced(self, features: Tensor) -> Tensor:
        """What the fusion reads, `[*, d]`, of the target's features `[*, k d]`."""
        result: Tensor = self.reduction(features)
        return result

    def _reads_by_cache(self) -> bool:
        """Whether the layers, read token by token with a cache, give what they give at once."""
        weight, training = self.fusion.weight, self.training
        hidden = torch.linspace(-1, 1, 2 * self.hidden_size, device=weight.device, dtype=weight.dtype)
        hidden, places = hidden.view(1, 2, -1).cos(), torch.arange(2, device=weight.device)[None]
        self.eval()
        outputs = []
        with torch.no_grad():
            for passes in ([slice(0, 2)], [slice(0, 1), slice(1, 2)]):
                cache = PreallocatedCache(len(self.layers), 1, 2)
                for part in passes:
                    cache.write_at(places[:, part])
                    mask = additive_mask(places[:, part, None] >= places[:, None], hidden.dtype)
                    outputs.append(self.attend(hidden[:, part], places[:, part], mask, cache)[:, -1])
        self.train(training)
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
            embeddings: e(x_{i+1}) after `embedded`, `[B, T, d]`.
            features: f_i after `reduced`, or the draft's prediction of it, `[B, T, d]`.
            slots: slot of x_{i+1}, int64 `[B, T]`.
            step: consecutive draft-made features before these inputs; 0 for features of the target.
            positions: i, int64 `[B, T]`.
            visible: cache columns that each query sees, bool `[B or 1, T, S]`.
            cache: stores the layers' keys and values and returns S columns.

        Returns:
            f̂_{i+1}, `[B, T, d]`.
        """
        hidden = self.position_aware(self.fusion, embeddings, features, slots, step)
        return self.attend(hidden, positions, additive_mask(visible, hidden.dtype), cache)

    def attend(self, hidden: Tensor, positions: Tensor, mask: Tensor, cache: Cache) -> Tensor:
        """The decoder layers alone, for inputs `[B, T, d]` and an additive mask `[B or 1, 1, T, S]`."""
        rotated = self.rotary(hidden, positions)
        for layer in self.layers:
            hidden = layer(
                hidden,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                position_embeddings=rotated,
            )
        result: Tensor = self.norm(hidden)
        return result


def _refused(config: PretrainedConfig) -> str:
    return (
        f"a draft for a {config.model_type} target: expected a target whose decoder layers have rotary position "
        "embeddings and can be used alone, such as llama, mistral, qwen2, qwen3, gemma, phi3 or olmo2"
    )


def _last_of(k: int, d: int) -> nn.Linear:
    """A map from the features of k layers, `[*, k d]`, to those of the last one."""
    reduction = nn.Linear(k * d, d, bias=False)
    with torch.no_grad():
        reduction.weight.copy_(torch.eye(k * d)[-d:])
    return reduction


def _identity_at_first(layer: nn.Module) -> nn.Module:
    """A decoder layer that adds nothing to its input until it is trained."""
    for name, weight in layer.named_parameters():
        if "o_proj" in name or "down_proj" in name:
            nn.init.zeros_(weight)
    return layer


def _shallow(config: PretrainedConfig, n_layers: int) -> PretrainedConfig:
    config = copy.deepcopy(config)
    config.num_hidden_layers = n_layers
    if getattr(config, "layer_types", None):
        config.layer_types = (config.layer_types * n_layers)[:n_layers]
    # The donor's embedding table is discarded: keep it small.
    config.vocab_size, config.pad_token_id = 8, None
    return config
