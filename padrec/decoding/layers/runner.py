"""Runs the target: the one place that touches the transformers model and its KV cache."""

import math
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from padrec.catalog import InputError
from padrec.decoding.layers.cached_layers import CachedLayers, FusedLayers, TransformersLayers, can_fuse
from padrec.decoding.layers.kv_cache import PreallocatedCache
from padrec.decoding.layers.layer_operations import Placement
from padrec.decoding.layers.packing import Packing
from padrec.decoding.layers.supported_models import attention_window, check_logits
from padrec.decoding.lists.token_tree import TokenTree


@dataclass(frozen=True)
class Prompts:
    """What the target reads before it writes a list.

    Attributes:
        tokens: int64 `[B, P]`, padded on the right.
        slots: slot of each token, int64 `[B, P]`.
        lengths: tokens of each row, int64 `[B]`, at least 1.
        packed: the tokens of all rows together, or more, but fewer than `B P`: rows are then read without their padding
            where the layers can. None reads them as they are padded.
    """

    tokens: Tensor
    slots: Tensor
    lengths: Tensor
    packed: int | None = None

    def packing(self, behind: int = 0) -> Packing | None:
        """How the rows are packed, each with so many tokens `behind` its prompt."""
        if self.packed is None:
            return None
        batch, width = self.tokens.shape
        return Packing.of(self.lengths + behind, width + behind, self.packed + batch * behind)

    def batches(self, size: int) -> "list[Prompts]":
        """At most `size` prompts at a time, in their order, padded no more than these need; waits for the device."""
        lengths: list[int] = self.lengths.tolist()
        batches = []
        for first in range(0, len(lengths), size):
            rows = slice(first, first + size)
            at = rows, slice(0, max(lengths[rows]))
            batches.append(Prompts(self.tokens[at], self.slots[at], self.lengths[rows]))
        return batches


@dataclass(frozen=True)
class Branches:
    """Tokens that continue each prompt in several ways at once.

    Attributes:
        tokens: int64 `[B, N]`.
        depths: tokens between the prompt and each of them on its own way, int64 `[N]`.
        seen: bool `[B, N, R]`; `[b, i, j]` says that token i sees the j-th token behind the prompt. It sees itself.
        first: tokens behind the prompt that earlier passes have read; R is at least `first + N`.
    """

    tokens: Tensor
    depths: Tensor
    seen: Tensor
    first: int = 0


class TargetRunner(Protocol):
    """The target as decoders see it."""

    model: PreTrainedModel
    fingerprint: str

    def prefill(self, prompts: Prompts, extra: int) -> tuple[Tensor, Tensor]:
        """Read the prompts. See `TransformersRunner.prefill`."""
        ...

    def prefill_branches(self, prompts: Prompts, branches: Branches, extra: int) -> Tensor:
        """Read the prompts and what may follow. See `TransformersRunner.prefill_branches`."""
        ...

    def read_branches(self, branches: Branches) -> Tensor:
        """Read on. See `TransformersRunner.read_branches`."""
        ...

    def logits(self, features: Tensor) -> Tensor:
        """Logits from features. See `TransformersRunner.logits`."""
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

    Raises:
        InputError: a model that changes the logits of its head; from `prefill`, prompts and lists that are longer than
            what one of its layers attends to.
    """

    def __init__(self, model: PreTrainedModel, fingerprint: str = "") -> None:
        check_logits(model.config)
        self.model = model
        self._window = attention_window(model.config)
        self.fingerprint = fingerprint
        self._embed = model.get_input_embeddings()
        self._head = model.get_output_embeddings()
        self._layers = _layers_of(model)
        self._row_lengths: dict[int, Tensor] = {}  # by batch size
        self._lengths = torch.empty(0, dtype=torch.long)

    def prefill(self, prompts: Prompts, extra: int) -> tuple[Tensor, Tensor]:
        """Read the prompts into an empty cache.

        Args:
            prompts: the prompts.
            extra: tokens to leave room for behind the longest prompt: the list and one tree.

        Returns:
            Logits behind each prompt's last token, `[B, V]`, and features of all its tokens, `[B, P, d]`; those of
            padding may be anything finite.
        """
        batch, width = prompts.tokens.shape
        self._reserve(batch, width + extra)
        # Padding stands on the right, so that no token that counts sees it.
        columns = torch.arange(width, device=prompts.tokens.device).expand(batch, -1)
        placement = Placement(torch.zeros_like(prompts.lengths), columns, packing=prompts.packing())
        features = self._layers(self._embed(prompts.tokens), placement)
        self._lengths.copy_(prompts.lengths)
        last = features[torch.arange(batch, device=features.device), prompts.lengths - 1]
        return self._head(last), features

    def prefill_branches(self, prompts: Prompts, branches: Branches, extra: int) -> Tensor:
        """Read the prompts into an empty cache, and in the same pass tokens that may follow them.

        Args:
            prompts: the prompts.
            branches: what may follow, N tokens for each prompt; N may be 0.
            extra: tokens to leave room for behind the longest prompt: all branches that will be read, these included.

        Returns:
            Features of each prompt's last token and of the branches, `[B, 1 + N, d]`.
        """
        if branches.tokens.shape[1] == 0:
            _, features = self.prefill(prompts, extra)
        else:
            self._reserve(len(prompts.tokens), prompts.tokens.shape[1] + extra)
            tokens, placement = _behind_prompts(prompts, branches)
            features = self._layers(self._embed(tokens), placement)
            self._lengths.copy_(prompts.lengths)
        place = torch.arange(-1, branches.tokens.shape[1], device=features.device)
        at = prompts.lengths[:, None] + place
        return features.gather(1, at[..., None].expand(-1, -1, features.shape[-1]))

    def read_branches(self, branches: Branches) -> Tensor:
        """Read more tokens behind the prompts, beside those that `prefill_branches` and this method have read.

        Returns:
            Features of the tokens, `[B, N, d]`.
        """
        depths = branches.depths.expand(len(branches.tokens), -1)
        placement = Placement(self._lengths, depths, branches.first, branches.seen)
        return self._layers(self._embed(branches.tokens), placement)

    def logits(self, features: Tensor) -> Tensor:
        """Logits `[*, V]` from features `[*, d]`."""
        logits: Tensor = self._head(features)
        return logits

    def verify(self, tree: TokenTree) -> tuple[Tensor, Tensor]:
        """Read a tree behind what is in the cache.

        Returns:
            Logits `[B, N, V]` and features `[B, N, d]` of every node.
        """
        placement = Placement(self._lengths, tree.depths, 0, tree.ancestors)
        features = self._layers(self._embed(tree.tokens), placement)
        return self._head(features), features

    def commit(self, path: Tensor, count: Tensor) -> None:
        """Keep a path of the last tree in the cache, and forget the rest of the tree.

        Args:
            path: nodes from the root, int64 `[B, M]`.
            count: how many of them to keep, int64 `[B]`; 0 keeps nothing.
        """
        if path.shape[1] > 1:
            # Columns behind `count` are overwritten too: they held the tree, which is no longer needed.
            self._layers.keep(self._lengths, path)
        self._lengths += count

    def _reserve(self, batch: int, capacity: int) -> None:
        if self._window is not None and capacity > self._window:
            whose = f"a {self.model.config.model_type} model whose layers attend to the last {self._window} tokens"
            what = "the longest prompt with its list and the proposals of a round"
            raise InputError(f"{whose}: expected at least {capacity}, {what}")
        device = self.model.device
        # Like the layers' buffers these stay where they are, since recorded passes count on it.
        if batch not in self._row_lengths:
            self._row_lengths[batch] = torch.zeros(batch, dtype=torch.long, device=device)
        self._lengths = self._row_lengths[batch]
        self._layers.reserve(batch, roomy(capacity, device))


def roomy(capacity: int, device: torch.device) -> int:
    """Columns to allocate where at least `capacity` are needed.

    Caches of few sizes can serve many batches, and on a GPU the passes that were recorded on them can too. There unused
    columns cost memory alone; on the CPU they cost time.
    """
    if device.type == "cuda":
        return max(256, 1 << (capacity - 1).bit_length())
    return math.ceil(capacity / 64) * 64


def _behind_prompts(prompts: Prompts, branches: Branches) -> tuple[Tensor, Placement]:
    """Each prompt's tokens and its branches right behind them, `[B, P + N]`, and where they stand.

    What stands behind a row's branches is as wide as its prompt's padding; nothing sees it.
    """
    lengths, (width, n_branches) = prompts.lengths[:, None], (prompts.tokens.shape[1], branches.tokens.shape[1])
    column = torch.arange(width + n_branches, device=lengths.device)
    behind = column - lengths  # [B, P + N]
    in_prompt, at = behind < 0, behind.clamp(0, n_branches - 1)
    prompt_tokens = torch.nn.functional.pad(prompts.tokens, (0, n_branches))
    tokens = torch.where(in_prompt, prompt_tokens, branches.tokens.gather(1, at))
    positions = torch.where(in_prompt, column, lengths + branches.depths[at])
    before = column <= column[:, None]  # [P + N, P + N]
    seen = branches.seen.gather(1, at[..., None].expand(-1, -1, branches.seen.shape[-1]))
    seen = seen.gather(2, at[:, None].expand(-1, len(column), -1))  # [B, P + N, P + N]
    is_branch = ((behind >= 0) & (behind < n_branches))[:, None]
    visible = torch.where(in_prompt[..., None], before, in_prompt[:, None] | (seen & is_branch))
    return tokens, Placement(torch.zeros_like(prompts.lengths), positions, 0, visible, prompts.packing(n_branches))


def _layers_of(model: PreTrainedModel) -> CachedLayers:
    base: Any = model.base_model
    if can_fuse(model.config):
        return FusedLayers(base.layers, model.config, base.rotary_emb, base.norm)

    def forward(hidden: Tensor, positions: Tensor, mask: Tensor, cache: PreallocatedCache) -> Tensor:
        features: Tensor = base(
            inputs_embeds=hidden,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        return features

    return TransformersLayers(forward, model.config.num_hidden_layers)
