"""Runs the target: the one place that touches the transformers model and its KV cache."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from padrec.decoding.kv_cache import PreallocatedCache, additive_mask, tree_mask
from padrec.decoding.token_tree import TokenTree


@dataclass(frozen=True)
class Prompts:
    """What the target reads before it writes a list.

    Attributes:
        tokens: int64 `[B, P]`, padded on the right.
        slots: slot of each token, int64 `[B, P]`.
        lengths: tokens of each row, int64 `[B]`, at least 1.
    """

    tokens: Tensor
    slots: Tensor
    lengths: Tensor


class TargetRunner(Protocol):
    """The target as decoders see it."""

    model: PreTrainedModel
    fingerprint: str

    def prefill(self, prompts: Prompts, extra: int) -> tuple[Tensor, Tensor]:
        """Read the prompts. See `TransformersRunner.prefill`."""
        ...

    def verify(self, tree: TokenTree) -> tuple[Tensor, Tensor]:
        """Read a tree. See `TransformersRunner.verify`."""
        ...

    def commit(self, path: Tensor, count: Tensor) -> None:
        """Keep a path of the last tree. See `TransformersRunner.commit`."""
        ...


class TransformersRunner:
    """Any transformers causal language model as a target.

    Features are the hidden states behind the final norm, those that the head reads. The same runner serves every
    arm of a comparison, so that none is slower than it needs to be.

    Args:
        model: the target, in evaluation mode, on its device.
        fingerprint: identifies the target's weights; drafts trained for another target refuse to run.
    """

    def __init__(self, model: PreTrainedModel, fingerprint: str = "") -> None:
        self.model = model
        self.fingerprint = fingerprint
        self._head = model.get_output_embeddings()
        self._cache: PreallocatedCache | None = None
        self._lengths = torch.empty(0, dtype=torch.long)

    def prefill(self, prompts: Prompts, extra: int) -> tuple[Tensor, Tensor]:
        """Read the prompts into an empty cache.

        Args:
            prompts: the prompts.
            extra: tokens to leave room for behind the longest prompt: the list and one tree.

        Returns:
            Logits behind each prompt's last token, `[B, V]`, and features of all its tokens, `[B, P, d]`.
        """
        batch, width = prompts.tokens.shape
        cache = self._reserve(batch, width + extra)
        self._lengths = prompts.lengths.clone()
        columns = torch.arange(width, device=prompts.tokens.device).expand(batch, -1)
        cache.write_at(columns, visible=width)
        # Padding stands on the right, so a causal mask alone hides it from every token that counts.
        causal = (columns[:, None, :] <= columns[:, :, None]).expand(batch, -1, -1)
        features = self._forward(prompts.tokens, columns, causal, cache)
        last = features[torch.arange(batch, device=features.device), prompts.lengths - 1]
        return self._head(last), features

    def verify(self, tree: TokenTree) -> tuple[Tensor, Tensor]:
        """Read a tree behind what is in the cache.

        Returns:
            Logits `[B, N, V]` and features `[B, N, d]` of every node.
        """
        cache = self._allocated()
        node = torch.arange(tree.tokens.shape[1], device=tree.tokens.device)
        cache.write_at(self._lengths[:, None] + node)
        mask = tree_mask(self._lengths, tree.ancestors, cache.capacity)
        features = self._forward(tree.tokens, self._lengths[:, None] + tree.depths, mask, cache)
        return self._head(features), features

    def commit(self, path: Tensor, count: Tensor) -> None:
        """Keep a path of the last tree in the cache, and forget the rest of the tree.

        Args:
            path: nodes from the root, int64 `[B, M]`.
            count: how many of them to keep, int64 `[B]`; 0 keeps nothing.
        """
        if path.shape[1] > 1:
            place = torch.arange(path.shape[1], device=path.device)
            # Columns behind `count` are overwritten too: they held the tree, which is no longer needed.
            self._allocated().keep(self._lengths[:, None] + path, self._lengths[:, None] + place)
        self._lengths = self._lengths + count

    def _forward(self, tokens: Tensor, positions: Tensor, visible: Tensor, cache: PreallocatedCache) -> Tensor:
        features: Tensor = self.model.base_model(
            input_ids=tokens,
            attention_mask=additive_mask(visible, self.model.dtype),
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        return features

    def _reserve(self, batch: int, capacity: int) -> PreallocatedCache:
        cache = self._cache
        if cache is None or cache.batch != batch or cache.capacity < capacity:
            n_layers: int = self.model.config.num_hidden_layers
            cache = PreallocatedCache(n_layers, batch, capacity)
            self._cache = cache
        return cache

    def _allocated(self) -> PreallocatedCache:
        if self._cache is None:
            raise RuntimeError("the runner has read no prompts: call prefill before verify and commit")
        return self._cache
