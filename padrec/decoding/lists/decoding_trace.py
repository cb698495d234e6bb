"""What a decode cost, and how many of its proposals were accepted."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class DecodingTrace:
    """Cost and acceptance counts of one decode of one batch; seconds are wall-clock time."""

    prefill_seconds: float  # until the first token is on the device
    decode_seconds: float  # for the rest
    target_passes: Tensor  # while the row was unfinished, without the prefill, int64 [B]
    draft_passes: Tensor  # while the row was unfinished, int64 [B]
    tokens: Tensor  # that were generated, int64 [B]; the prefill yields the first of each row
    # List tokens that a draft could have proposed, because all tokens before them in the round were kept, by slot and
    # draft depth 1 … D, int64 [L + 2, D].
    attempted: Tensor
    accepted: Tensor  # attempted tokens that were proposed and kept, int64 [L + 2, D]
    accepted_lengths: Tensor  # rounds of unfinished rows by the number of kept draft tokens, int64 [D + 1]
    recording_seconds: float = 0.0  # for compiling and capturing, once per shape; not in the other seconds
    decoder: str | None = None  # what was chosen, if there was a choice; see `Decoder.choices`
    drafted: Tensor | None = None  # whether each generated token is a kept proposal, bool [B, T]; None if not known
    accepted_by_source: Mapping[str, int] = field(default_factory=dict)  # accepted tokens by what proposed them

    @classmethod
    def of_counts(
        cls,
        prefill_seconds: float,
        decode_seconds: float,
        tokens: Tensor,
        counts: Sequence[Tensor],
        recording_seconds: float = 0.0,
        drafted: Tensor | None = None,
        accepted_by_source: Mapping[str, int] | None = None,
    ) -> "DecodingTrace":
        """The trace of rounds; `counts` are those of `RoundStatistics`, all tensors on the CPU."""
        target_passes, draft_passes, attempted, accepted = counts
        # Rounds that kept at least 0 … D + 1 tokens.
        at_least = np.zeros(accepted.shape[1] + 2, dtype=np.int64)
        at_least[0], at_least[1:-1] = target_passes.numpy().sum(), accepted.numpy().sum(0)
        accepted_lengths = torch.from_numpy(at_least[:-1] - at_least[1:])
        return cls(
            prefill_seconds,
            decode_seconds,
            target_passes,
            draft_passes,
            tokens,
            attempted,
            accepted,
            accepted_lengths,
            recording_seconds,
            drafted=drafted,
            accepted_by_source=accepted_by_source or {},
        )

    def widened(self, max_depth: int) -> "DecodingTrace":
        """Pad the counts with zeros to a greater depth D."""
        missing = max_depth + 1 - len(self.accepted_lengths)
        if missing == 0:
            return self
        attempted, accepted, lengths = (
            torch.nn.functional.pad(counts, (0, missing))
            for counts in (self.attempted, self.accepted, self.accepted_lengths)
        )
        return replace(self, attempted=attempted, accepted=accepted, accepted_lengths=lengths)

    @classmethod
    def joined(cls, parts: "Sequence[DecodingTrace]") -> "DecodingTrace":
        """Join the traces of batches of one request and decoder, decoded one after another."""
        summed, rows = ("attempted", "accepted", "accepted_lengths"), ("target_passes", "draft_passes", "tokens")
        decoders = {part.decoder for part in parts}
        drafted = [part.drafted for part in parts if part.drafted is not None]
        return cls(
            **{name: torch.stack([getattr(part, name) for part in parts]).sum(0) for name in summed},
            **{name: torch.cat([getattr(part, name) for part in parts]) for name in rows},
            prefill_seconds=sum(part.prefill_seconds for part in parts),
            decode_seconds=sum(part.decode_seconds for part in parts),
            recording_seconds=sum(part.recording_seconds for part in parts),
            decoder=decoders.pop() if len(decoders) == 1 else None,
            drafted=torch.cat(drafted) if len(drafted) == len(parts) else None,
            accepted_by_source=sum((Counter(part.accepted_by_source) for part in parts), Counter()),
        )

    @property
    def batch_size(self) -> int:
        """B, rows."""
        return self.tokens.shape[0]

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of prefill and decode."""
        return self.prefill_seconds + self.decode_seconds


class RoundStatistics:
    """Counts for a trace on the device, without synchronising; `n_slot_states` is L + 2, `max_depth` D.

    Attributes:
        counts: `target_passes`, `draft_passes`, `attempted` and `accepted` of a `DecodingTrace`, changed in place.
    """

    def __init__(self, batch: int, n_slot_states: int, max_depth: int, device: torch.device) -> None:
        # Few tensors, since each costs a launch in every round.
        self._passes = torch.zeros(2, batch, dtype=torch.long, device=device)  # target, draft
        self._proposals = self._passes.new_zeros(2, n_slot_states, max_depth)  # attempted, accepted
        self.counts = *self._passes, *self._proposals

    def reset(self) -> None:
        """Set all counts to zero."""
        self._passes.zero_()
        self._proposals.zero_()

    def add_round(self, active: Tensor, draft_passes: int) -> None:
        """Count a target pass and `draft_passes` draft passes for rows that are `active`, bool `[B]`."""
        self._passes.add_(torch.stack([active.long(), active * draft_passes]))

    def add_proposals(self, slots: Tensor, kept: Tensor, reached: Tensor, active: Tensor) -> None:
        """Count the proposals of one round.

        Args:
            slots: slots of the tokens emitted at depth 1 … D, int64 `[B, D]`.
            kept: kept draft tokens, int64 `[B]`.
            reached: depths that were attempted, int64 `[B]`: `kept`, or one more.
            active: rows that were unfinished, bool `[B]`.
        """
        _, n_slot_states, max_depth = self._proposals.shape
        depth = torch.arange(max_depth, device=slots.device)
        # Comparing and summing takes fewer launches on a GPU than adding at indices.
        in_slot = slots[:, None] == torch.arange(n_slot_states, device=slots.device)[:, None]  # [B, slots, D]
        counted = (depth < torch.stack([reached, kept])[..., None]) & active[:, None]  # [2, B, D]
        self._proposals.add_((in_slot & counted[:, :, None]).sum(1))
