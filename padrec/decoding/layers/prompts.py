"""What the target reads before it writes."""

from dataclasses import dataclass

from torch import Tensor

from padrec.decoding.device.shared_shapes import packed_size, recorded_width, roomy
from padrec.decoding.layers.variable_length_layout import VariableLengthLayout


@dataclass(frozen=True)
class Prompts:
    """What the target reads before it writes a list.

    Attributes:
        tokens: int64 `[B, P]`, padded on the right.
        slots: slot of each token, int64 `[B, P]`.
        lengths: tokens of each row, int64 `[B]`, at least 1.
        packed: the tokens of all rows together, or more, but fewer than `B P`: rows are then read without their padding
            where the layers can. None reads them as they are padded.
        excluded: leaves of the catalog that a row's list must not contain, int64 `[B, E]`, -1 for none, as
            `excluded_leaves` gives them; None excludes nothing and costs nothing.
    """

    tokens: Tensor
    slots: Tensor
    lengths: Tensor
    packed: int | None = None
    excluded: Tensor | None = None

    def layout(self, behind: int = 0) -> VariableLengthLayout | None:
        """How the rows are packed, each with so many tokens `behind` its prompt."""
        if self.packed is None:
            return None
        batch, width = self.tokens.shape
        return VariableLengthLayout.of(self.lengths + behind, width + behind, self.packed + batch * behind)

    def batches(self, size: int) -> "list[Prompts]":
        """At most `size` prompts at a time, in their order, padded no more than these need; waits for the device."""
        lengths: list[int] = self.lengths.tolist()
        batches = []
        for first in range(0, len(lengths), size):
            rows = slice(first, first + size)
            at = rows, slice(0, max(lengths[rows]))
            excluded = None if self.excluded is None else self.excluded[rows]
            batches.append(Prompts(self.tokens[at], self.slots[at], self.lengths[rows], excluded=excluded))
        return batches


@dataclass(frozen=True)
class PromptShape:
    """The shape in which the prompts of a batch are recorded.

    Attributes:
        batch: their number.
        width: to which they are padded, in tokens.
        packed: see `Prompts`.
        excluded: to how many leaves their excluded ones are padded; None where nothing is excluded.
    """

    batch: int
    width: int
    packed: int | None
    excluded: int | None = None

    @classmethod
    def of(cls, prompts: Prompts, n_tokens: int | None = None) -> "PromptShape":
        """The shape of prompts that have so many tokens together; where None, the device is asked if it matters."""
        (batch, width), device = prompts.tokens.shape, prompts.tokens.device
        width = recorded_width(width, device)
        # A power of two, so that few numbers of excluded items have to be captured.
        excluded = None if prompts.excluded is None else 1 << max(0, prompts.excluded.shape[1] - 1).bit_length()
        if batch == 1:
            return cls(batch, width, None, excluded)
        if n_tokens is None:
            n_tokens = int(prompts.lengths.sum())
        return cls(batch, width, packed_size(n_tokens, batch, width, device), excluded)


def room_for(prompts: Prompts, behind: int) -> int:
    """Capacity of the cache, in tokens, for prompts as they are recorded and so many tokens behind them."""
    device = prompts.tokens.device
    return roomy(recorded_width(prompts.tokens.shape[1], device) + behind, device)
