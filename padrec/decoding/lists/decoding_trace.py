"""What a decode cost and how its proposals fared."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class DecodingTrace:
    """What one decode of one batch cost and how its proposals fared.

    Attributes:
        prefill_seconds: wall-clock seconds until the device has the first token.
        decode_seconds: wall-clock seconds for the rest.
        target_passes: passes while the row was unfinished, the prefill not counted, int64 `[B]`.
        draft_passes: forward passes of the draft meanwhile, int64 `[B]`.
        tokens: generated tokens, int64 `[B]`; the first of each row comes from the prefill.
        attempted: tokens of the lists that a draft could have proposed in a round, because all before them were kept,
            by their slot and draft depth 1 … D, int64 `[L + 2, D]`.
        accepted: those of them that it proposed and that were kept, int64 `[L + 2, D]`.
        accepted_lengths: rounds of unfinished rows by the number of draft tokens kept, int64 `[D + 1]`.
        recording_seconds: wall-clock seconds for compiling and recording what was needed for the first time; paid once,
            and not part of the other seconds.
        decoder: the one that was chosen, by its name, where there are several; see `FastestDecoder`.
    """

    prefill_seconds: float
    decode_seconds: float
    target_passes: Tensor
    draft_passes: Tensor
    tokens: Tensor
    attempted: Tensor
    accepted: Tensor
    accepted_lengths: Tensor
    recording_seconds: float = 0.0
    decoder: str | None = None

    def widened(self, max_depth: int) -> "DecodingTrace":
        """The same trace with counts up to a depth D that its own rounds never came to."""
        missing = max_depth + 1 - len(self.accepted_lengths)
        attempted, accepted, lengths = (
            torch.nn.functional.pad(counts, (0, missing))
            for counts in (self.attempted, self.accepted, self.accepted_lengths)
        )
        return replace(self, attempted=attempted, accepted=accepted, accepted_lengths=lengths)

    @classmethod
    def joined(cls, parts: "Sequence[DecodingTrace]") -> "DecodingTrace":
        """The trace of several batches of the same request and decoder, decoded one after another."""
        summed, rows = ("attempted", "accepted", "accepted_lengths"), ("target_passes", "draft_passes", "tokens")
        decoders = {part.decoder for part in parts}
        return cls(
            **{name: torch.stack([getattr(part, name) for part in parts]).sum(0) for name in summed},
            **{name: torch.cat([getattr(part, name) for part in parts]) for name in rows},
            prefill_seconds=sum(part.prefill_seconds for part in parts),
            decode_seconds=sum(part.decode_seconds for part in parts),
            recording_seconds=sum(part.recording_seconds for part in parts),
            decoder=decoders.pop() if len(decoders) == 1 else None,
        )

    @property
    def batch_size(self) -> int:
        """Rows of the batch."""
        return self.tokens.shape[0]

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of the whole decode."""
        return self.prefill_seconds + self.decode_seconds


class RoundStatistics:
    """Collects a trace's counts on the device, without synchronising.

    Args:
        batch: rows.
        n_slot_states: L + 2.
        max_depth: D, the deepest proposal of a round.
        device: where the counts are kept.
    """

    def __init__(self, batch: int, n_slot_states: int, max_depth: int, device: torch.device) -> None:
        self._attempted = torch.zeros(n_slot_states, max_depth, dtype=torch.long, device=device)
        self._accepted = torch.zeros_like(self._attempted)
        self._lengths = torch.zeros(max_depth + 1, dtype=torch.long, device=device)
        self._target_passes = torch.zeros(batch, dtype=torch.long, device=device)
        self._draft_passes = torch.zeros_like(self._target_passes)

    def reset(self) -> None:
        """Forget all counts."""
        for counts in self.counts:
            counts.zero_()

    @property
    def counts(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Attempted and accepted proposals, rounds by their kept tokens, passes of the target and of the draft."""
        return self._attempted, self._accepted, self._lengths, self._target_passes, self._draft_passes

    def add_round(self, active: Tensor, draft_passes: int) -> None:
        """Count one pass of the target for the rows that are still `active`, bool `[B]`."""
        self._target_passes += active
        self._draft_passes += active * draft_passes

    def add_proposals(self, slots: Tensor, kept: Tensor, reached: Tensor, active: Tensor) -> None:
        """Count the proposals of one round.

        Args:
            slots: slot of the token emitted at depth 1 … D, int64 `[B, D]`.
            kept: draft tokens kept, int64 `[B]`.
            reached: depths that verification came to, int64 `[B]`: `kept`, or one more.
            active: rows that were still unfinished, bool `[B]`.
        """
        n_slot_states, max_depth = self._attempted.shape
        depth = torch.arange(max_depth + 1, device=slots.device)
        # Compared and summed, where adding at indices would be many launches on a GPU.
        in_slot = slots[:, None] == torch.arange(n_slot_states, device=slots.device)[:, None]  # [B, slots, D]
        attempted = (depth[:-1] < reached[:, None]) & active[:, None]
        accepted = (depth[:-1] < kept[:, None]) & active[:, None]
        self._attempted += (in_slot & attempted[:, None]).sum(0)
        self._accepted += (in_slot & accepted[:, None]).sum(0)
        self._lengths += ((kept[:, None] == depth) & active[:, None]).sum(0)

    def trace(
        self, prefill_seconds: float, decode_seconds: float, tokens: Tensor, recording_seconds: float = 0.0
    ) -> DecodingTrace:
        """The finished trace, its tensors on the CPU and no longer changed by what is counted next."""
        # Rounds without proposals, all those of decoders that make none, kept none.
        self._lengths[0] = self._target_passes.sum() - self._lengths[1:].sum()
        return DecodingTrace(
            prefill_seconds=prefill_seconds,
            decode_seconds=decode_seconds,
            target_passes=_on_host(self._target_passes),
            draft_passes=_on_host(self._draft_passes),
            tokens=_on_host(tokens),
            attempted=_on_host(self._attempted),
            accepted=_on_host(self._accepted),
            accepted_lengths=_on_host(self._lengths),
            recording_seconds=recording_seconds,
        )


def _on_host(counts: Tensor) -> Tensor:
    # A copy on the CPU too, where `cpu()` would return the very tensor that goes on counting.
    return counts.to("cpu", copy=True)
