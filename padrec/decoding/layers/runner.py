"""The target at decoding time: the only code that calls the transformers model and its KV cache."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from padrec.catalog import InputError
from padrec.decoding.layers.cached_layers import LAST_LAYER, CachedLayers, LayerSession
from padrec.decoding.layers.fused_layers import FusedLayers, can_fuse
from padrec.decoding.layers.layer_operations import Head, LayerOperations
from padrec.decoding.layers.placement import Placement
from padrec.decoding.layers.prompts import Branches, Prompts, after_prompts
from padrec.decoding.layers.transformers_layers import PreallocatedCache, TransformersLayers
from padrec.decoding.lists.tensor_record import pick
from padrec.decoding.lists.token_tree import TokenTree

# Settings that change the logits after the head, with the value that leaves them as they are.
_NEUTRAL_SCALES = {"logits_scaling": 1.0, "logit_scale": 1.0, "final_logit_softcapping": None}


class TransformersRunner:
    """Any transformers causal language model as a target.

    All arms of a comparison share one runner, so that none is slower than it needs to be.

    Args:
        model: the target, in evaluation mode, on its device.
        fingerprint: identifies the target's weights; drafts trained for another target refuse to run.

    Attributes:
        operations: compute the layers' steps and the head.

    Raises:
        InputError: the model changes the logits after its head.
    """

    def __init__(self, model: PreTrainedModel, fingerprint: str = "") -> None:
        check_logits(model.config)
        self.model, self.fingerprint = model, fingerprint
        self._window = _attention_window(model.config)
        self._layers = _layers_of(model)
        self.operations = self._layers.operations if isinstance(self._layers, FusedLayers) else LayerOperations()
        self._head = Head(model.get_output_embeddings(), self.operations)

    def logits(self, features: Tensor) -> Tensor:
        """Logits `[*, V]`, float32 (float64 for a float64 model), from the head's features `[*, d]`."""
        return self._head(features)

    def check_length(self, prompt: int, written: int) -> None:
        """Check that prompts of at most `prompt` tokens can be continued by `written`; see `check_length`."""
        check_length(self.model.config, prompt + written - 1)  # the last token is not read

    def open(self, batch: int, capacity: int, feature_layers: Sequence[int] = LAST_LAYER) -> "TransformersSession":
        """Open a session for `batch` texts of at most `capacity` tokens: prompt, list and one round's tree.

        Features are the hidden states of `feature_layers`, see `CachedLayers.open`; by default those that the head
        reads.

        Raises:
            InputError: the capacity exceeds a layer's attention window, or a feature layer does not exist.
        """
        if self._window is not None and capacity > self._window:
            whose = f"a {self.model.config.model_type} model whose layers attend to the last {self._window} tokens"
            what = "the longest prompt with its list and the proposals of a round"
            raise InputError(f"{whose}: expected at least {capacity}, {what}")
        lengths = torch.zeros(batch, dtype=torch.long, device=self.model.device)
        layers = self._layers.open(batch, capacity, feature_layers)
        return TransformersSession(self.model.get_input_embeddings(), layers, self._head, lengths, capacity)


class TransformersSession:
    """The target with the KV cache of one batch shape; `lengths` are each row's cached tokens, int64 `[B]`."""

    def __init__(self, embed: nn.Module, layers: LayerSession, head: Head, lengths: Tensor, capacity: int) -> None:
        self._embed, self._layers, self._head, self._lengths = embed, layers, head, lengths
        # Made once: each would be a launch of every pass.
        self._no_past = torch.zeros_like(lengths)
        self._places = torch.arange(-1, capacity, device=lengths.device)

    def prefill(self, prompts: Prompts) -> tuple[Tensor, Tensor]:
        """Read the prompts into an empty cache.

        Returns:
            Logits after each prompt's last token, `[B, V]`, and features of all tokens, `[B, P, k d]`; those of padding
            may be anything finite.
        """
        outputs, features = self._prefill(prompts)
        return self._head(self._from_last(outputs, prompts, 1)[:, 0]), features

    def _prefill(self, prompts: Prompts) -> tuple[Tensor, Tensor]:
        batch, width = prompts.tokens.shape
        # Padding is on the right, so no real token sees it.
        columns = self._places[1 : 1 + width].expand(batch, -1)
        result = self._layers(self._embed(prompts.tokens), Placement(self._no_past, columns, layout=prompts.layout()))
        self._lengths.copy_(prompts.lengths)
        return result

    def _embedded(self, tokens: Tensor) -> Tensor:
        if type(self._embed) is not nn.Embedding or not tokens.is_cuda:
            embedded: Tensor = self._embed(tokens)
            return embedded
        # A GPU takes five times as long to embed ten tokens as to gather ten rows.
        return pick(self._embed.weight[None], tokens.reshape(1, -1)).view(*tokens.shape, -1)

    def _from_last(self, outputs: Tensor, prompts: Prompts, count: int) -> Tensor:
        """The outputs `[B, *, d]` of `count` tokens, of which each prompt's last one is the first."""
        return pick(outputs, prompts.lengths[:, None] + self._places[:count])

    def prefill_branches(self, prompts: Prompts, branches: Branches) -> Tensor:
        """Read the prompts, with N >= 0 branches after each, into an empty cache.

        Returns the outputs at each prompt's last token and at the branches, `[B, 1 + N, d]`.
        """
        if branches.tokens.shape[1] == 0:
            outputs, _ = self._prefill(prompts)
        else:
            tokens, placement = after_prompts(prompts, branches, self._no_past, self._places[1:])
            outputs, _ = self._layers(self._embed(tokens), placement)
            self._lengths.copy_(prompts.lengths)
        return self._from_last(outputs, prompts, 1 + branches.tokens.shape[1])

    def read_branches(self, branches: Branches) -> Tensor:
        """Read more branches after the prompts, beside those of earlier calls; returns their outputs, `[B, N, d]`."""
        depths = branches.depths.expand(len(branches.tokens), -1)
        placement = Placement(self._lengths, depths, branches.first, branches.seen)
        return self._layers(self._embedded(branches.tokens), placement)[0]

    def verify(self, tree: TokenTree) -> tuple[Tensor, Tensor]:
        """Read a tree after the cached tokens; returns logits `[B, N, V]` and features `[B, N, k d]` of its nodes."""
        placement = Placement(self._lengths, tree.depths, 0, tree.ancestors)
        outputs, features = self._layers(self._embedded(tree.tokens), placement)
        return self._head(outputs), features

    def commit(self, path: Tensor, count: Tensor) -> None:
        """Keep the first `count` `[B]` nodes of a path `[B, M]` from the root of the last tree, both int64."""
        if path.shape[1] > 1:
            # Columns after `count` are overwritten too; they held the rest of the tree.
            self._layers.keep(self._lengths, path)
        self._lengths += count


def check_logits(config: PretrainedConfig) -> None:
    """Check that a model's logits are those of its head, which decoders and drafts use as they are."""
    for name, neutral in _NEUTRAL_SCALES.items():
        value = getattr(config, name, neutral)
        if value not in (neutral, None):
            raise InputError(
                f"a model of type {config.model_type} with {name} {value}: expected {neutral}, since the logits "
                "of the head are used as they are"
            )


def longest_text(config: PretrainedConfig) -> int | None:
    """The most tokens of a text whose positions a model knows and does not compute otherwise; None without a limit."""
    settings: Any = config
    limits = [getattr(settings, "max_position_embeddings", None)]
    rope = getattr(settings, "rope_parameters", None) or {}
    for kind in (rope, *(part for part in rope.values() if isinstance(part, dict))):
        if kind.get("rope_type") == "longrope":  # other frequencies for longer texts, all their tokens included
            own = getattr(settings, "original_max_position_embeddings", None)
            limits.append(kind.get("original_max_position_embeddings", own))
    return min((limit for limit in limits if limit is not None), default=None)


def check_length(config: PretrainedConfig, tokens: int) -> None:
    """Check that a model knows the positions of `tokens` tokens, a prompt with its list; see `longest_text`."""
    longest = longest_text(config)
    if longest is not None and tokens > longest:
        raise InputError(
            f"a {config.model_type} model that knows the positions of {longest} tokens (max_position_embeddings, or "
            f"the length at which its rotary embedding changes): expected at least {tokens}, those of the longest "
            "prompt with its list"
        )


def _attention_window(config: PretrainedConfig) -> int | None:
    """The attention window of a model's layers, in tokens; None without one."""
    settings: Any = config
    window: int | None = getattr(settings, "sliding_window", None)
    layer_types = getattr(settings, "layer_types", None)
    if layer_types is not None:
        return window if "sliding_attention" in layer_types else None
    return window if getattr(settings, "use_sliding_window", True) else None


def _layers_of(model: PreTrainedModel) -> CachedLayers:
    base: Any = model.base_model
    if can_fuse(model.config):
        return FusedLayers(base.layers, model.config, base.rotary_emb, base.norm)

    longest = longest_text(model.config)

    def forward(
        hidden: Tensor, positions: Tensor, mask: Tensor, cache: PreallocatedCache, all_states: bool
    ) -> Sequence[Tensor]:
        if longest is not None:
            # Padding and proposals after the end of a list, which count for nothing, may lie beyond.
            positions = positions.clamp(max=longest - 1)
        inputs = {"inputs_embeds": hidden, "attention_mask": mask, "position_ids": positions}
        found = base(**inputs, past_key_values=cache, use_cache=True, output_hidden_states=all_states)
        states: Sequence[Tensor] = found.hidden_states if all_states else [found.last_hidden_state]
        return states

    return TransformersLayers(forward, model.config.num_hidden_layers, base.device)
