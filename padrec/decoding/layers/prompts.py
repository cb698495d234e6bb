"""The input of a target: prompts, and branches that continue them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor

from padrec.catalog import PositiveInt, check_arguments
from padrec.decoding.layers.placement import Placement, VariableLengthLayout
from padrec.decoding.lists.sampling import Sampling


@dataclass(frozen=True)
class Prompts:
    """What the target reads before it writes a list, on the host or on the device that decodes.

    Attributes:
        tokens: int64 `[B, P]`, padded on the right.
        slots: slot of each token, int64 `[B, P]`.
        lengths: tokens of each row, int64 `[B]`, at least 1.
        packed: room for the tokens of all rows, less than `B P`: layers that can then skip the padding. None reads
            the rows as they are padded.
        excluded: leaves of the catalog that a row's list must not contain, int64 `[B, E]`, -1 for none, as
            `excluded_leaves` returns them; None excludes nothing and costs nothing.
        keys: what makes each row's list random, int64 `[B]`, as `Sampling.keys` draws them: a user with the same key
            gets the same list in any batch. None draws them from the decode's generator.
    """

    tokens: Tensor
    slots: Tensor
    lengths: Tensor
    packed: PositiveInt | None = None
    excluded: Tensor | None = None
    keys: Tensor | None = None

    def __post_init__(self) -> None:
        if self.packed is not None:
            check_arguments(Prompts, {"packed": self.packed})

    def to(self, device: torch.device) -> "Prompts":
        """The same prompts on a device."""
        return self.map(lambda values: values.to(device))

    def map(self, change: Callable[[Tensor], Tensor]) -> "Prompts":
        """Apply a function to every tensor."""
        changed: dict[str, Any] = {n: change(value) for n, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **changed)

    def layout(self, extra: int = 0) -> VariableLengthLayout | None:
        """The packed layout of the rows, each with `extra` tokens after its prompt."""
        if self.packed is None:
            return None
        batch, width = self.tokens.shape
        return VariableLengthLayout.of(self.lengths + extra, width + extra, self.packed + batch * extra)

    def random_keys(self, sampling: Sampling, generator: torch.Generator) -> Tensor:
        """The rows' own keys, or else new ones; see `Sampling.keys`."""
        return sampling.keys(len(self.tokens), generator, self.tokens.device) if self.keys is None else self.keys

    def batches(self, size: int) -> "list[Prompts]":
        """Split into batches of at most `size` prompts, each trimmed to its longest prompt; synchronises the device."""
        lengths: list[int] = self.lengths.tolist()
        batches = []
        for first in range(0, len(lengths), size):
            rows = slice(first, first + size)
            part, width = self.map(itemgetter(rows)), max(lengths[rows])
            batches.append(replace(part, tokens=part.tokens[:, :width], slots=part.slots[:, :width], packed=None))
        return batches


@dataclass(frozen=True)
class Branches:
    """Tokens that continue each prompt along several paths at once."""

    tokens: Tensor  # int64 [B, N]
    depths: Tensor  # tokens between the prompt and each token on its path, int64 [N], or [B, N] where rows differ
    seen: Tensor  # [b, i, j] says that token i sees the j-th token after the prompt, and itself; bool [B, N, R]
    first: int = 0  # tokens after the prompt that earlier passes read; R is at least first + N


def after_prompts(prompts: Prompts, branches: Branches, no_past: Tensor, columns: Tensor) -> tuple[Tensor, Placement]:
    """Each prompt's tokens with its branches right after them, `[B, P + N]`, and their placement.

    As many columns as the prompt's padding follow a row's branches; nothing sees them. `no_past` are zeros, int64
    `[B]`, and `columns` the numbers from 0 on, at least P + N.
    """
    lengths, n_branches = prompts.lengths[:, None], branches.tokens.shape[1]
    joined = torch.cat([prompts.tokens, branches.tokens], 1)
    column = columns[: joined.shape[1]]
    after = column - lengths  # [B, P + N]
    in_prompt, branch = after < 0, after.clamp(0, n_branches - 1)
    tokens = torch.where(in_prompt, joined, branches.tokens.gather(1, branch))
    depths = branches.depths.expand(len(lengths), -1).gather(1, branch)
    positions = torch.where(in_prompt, column, lengths + depths)
    return tokens, Placement(no_past, positions, 0, branches.seen, prompts.layout(n_branches), prompts.lengths)
