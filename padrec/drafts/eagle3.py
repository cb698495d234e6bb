"""EAGLE-3's draft network."""

from copy import deepcopy
from typing import Any

from torch import Tensor, nn
from transformers import PretrainedConfig

from padrec.drafts.draft_architecture import EAGLE
from padrec.drafts.feature_draft_network import FeatureDraftNetwork


class EAGLE3Network(FeatureDraftNetwork):
    """Predicts what the target's head reads, from features of several layers that need not be those the head reads.

        h_i = Norm(R [low_i; middle_i; high_i])      of the target; the draft's own h_i is its last output
        u   = W [Norm(e(x_{i+1})); h_i] + b
        h_{i+1} = Norm(DecoderLayer(position_aware(u)))

    In the released code the attention reads [Norm(e); Norm(h)] itself, twice as wide as the residual stream, which
    is h. Here W joins them first, as in EAGLE, so that all drafts share their kernels and the position-aware part; and
    the head is the target's.

    Args:
        target_config: see `FeatureDraftNetwork`.
        **settings: see `FeatureDraftNetwork`.
    """

    def __init__(self, target_config: PretrainedConfig, **settings: Any) -> None:
        super().__init__(target_config, **settings)
        norm: nn.Module = self.layer.get_submodule("post_attention_layernorm")
        self.embedding_norm, self.feature_norm, self.norm = (deepcopy(norm) for _ in range(3))

    def embedded(self, embeddings: Tensor) -> Tensor:
        """See `FeatureDraftNetwork.embedded`."""
        result: Tensor = self.embedding_norm(embeddings)
        return result

    def reduced(self, features: Tensor) -> Tensor:
        """See `FeatureDraftNetwork.reduced`."""
        result: Tensor = self.feature_norm(super().reduced(features))
        return result


class EAGLE3(EAGLE):
    """EAGLE-3's network (arXiv 2503.01840) for features of several target layers; see `EAGLE3Network`.

    Train it with `feature_weight: 0` and `through_steps: true`. The released code reads layers 2, n / 2 and n - 3 of n.
    """

    network_class = EAGLE3Network
