"""Continuous batching: rows whose lists are finished go on with prompts that wait."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from padrec.decoding.decoder import ListBuffer, ListRequest, Stopwatch
from padrec.decoding.recommendations import DecodingTrace, Recommendations
from padrec.decoding.recording import Recording
from padrec.decoding.row_copy import RowCopy
from padrec.decoding.runner import Prompts
from padrec.decoding.session import PromptShape, Rounds, Start

# One row in so many is replaced at a time: rows that wait for more to finish are idle, and a prefill reads all
# weights however few its prompts. On a CPU an eighth took fewer passes than a quarter, and a sixteenth was no faster.
_REPLACED_SHARE = 8


@dataclass(frozen=True)
class _Group:
    """Prompts that begin together.

    Attributes:
        prompts: padded no more than they need; where too few are left, the first one stands in for those that lack.
        keys: their random keys, int64 `[R]`.
        members: which prompts of the decode they are, without those that stand in.
        shape: in which they are recorded.
    """

    prompts: Prompts
    keys: Tensor
    members: list[int]
    shape: PromptShape


class ContinuousSession:
    """Decodes more prompts than it has rows (continuous batching, Yu et al., OSDI 2022).

    The first prompts begin as those of a plain batch. When enough rows are finished, the prompts that are next are read
    as a small batch of their own, and its rows are copied into the place of the finished ones: keys and values, lists,
    and what the draft knows. All shapes are fixed, so that this is recorded like a round.

    Args:
        rounds: what is recorded, made from batch size and capacity.
        batch: B, rows, at least 2.
        capacity: tokens that a row has room for: prompt, list and one round's tree.
        request: what is generated.
        device: where.
    """

    def __init__(
        self,
        rounds: Callable[[int, int], Rounds],
        batch: int,
        capacity: int,
        request: ListRequest,
        device: torch.device,
    ) -> None:
        self._batch, self._capacity = batch, capacity
        self._n_newcomers = max(1, batch // _REPLACED_SHARE)
        self._rounds = rounds(batch, capacity)
        self._newcomers = rounds(self._n_newcomers, capacity)
        self._request = request
        self._device = device
        place = torch.zeros(self._n_newcomers, dtype=torch.long, device=device)
        self._replaced = RowCopy(place, place.clone())
        self._starts: dict[PromptShape, Start] = {}
        self._round: Recording | None = None

    def decode(self, prompts: Prompts, generator: torch.Generator) -> tuple[Recommendations, DecodingTrace]:
        """Write one list for each of N prompts, N above B; see `Decoder.decode`."""
        n_prompts = len(prompts.tokens)
        groups = self._groups(prompts, self._request.sampling.keys(n_prompts, generator, self._device))
        recording_seconds = self._record(groups)
        finished = ListBuffer(self._request, n_prompts, self._device)
        statistics = self._rounds.statistics.for_rows(n_prompts)

        def collect(rows: list[int]) -> None:
            copied = RowCopy.of(rows, [owners[row] for row in rows], self._device)
            finished.copy_rows(self._rounds.lists, copied)
            statistics.copy_rows(self._rounds.statistics, copied)

        watch = Stopwatch(self._device)
        first, *waiting = groups
        owners = list(first.members)  # the prompt of each row
        self._starts[first.shape].run(first.prompts, first.keys)
        prefill_seconds, decode_seconds = watch.lap(), 0.0
        for group in waiting:
            rows = self._free_rows(len(group.members))
            decode_seconds += watch.lap()
            collect(rows)
            self._replace(rows, group)
            for row, member in zip(rows, group.members, strict=True):
                owners[row] = member
            prefill_seconds += watch.lap()
        collect(self._free_rows(self._batch))
        trace = statistics.trace(prefill_seconds, decode_seconds + watch.lap(), finished.lengths, recording_seconds)
        return finished.recommendations(), trace

    def _groups(self, prompts: Prompts, keys: Tensor) -> list[_Group]:
        """All B prompts that begin at once, then as many at a time as are replaced at once."""
        lengths: list[int] = prompts.lengths.tolist()
        bounds = [0, *range(self._batch, len(lengths), self._n_newcomers), len(lengths)]
        groups = []
        for low, high in pairwise(bounds):
            size = self._batch if low == 0 else self._n_newcomers
            rows = [*range(low, high), *[low] * (size - (high - low))]
            chosen, width = torch.tensor(rows, device=self._device), max(lengths[low:high])
            tokens, slots = prompts.tokens[chosen, :width], prompts.slots[chosen, :width]
            begun = Prompts(tokens, slots, prompts.lengths[chosen])
            shape = PromptShape.of(begun, sum(lengths[row] for row in rows))
            groups.append(_Group(begun, keys[chosen], list(range(low, high)), shape))
        return groups

    def _record(self, groups: list[_Group]) -> float:
        """Record what the groups need for the first time, before any of them begins; returns the seconds it took."""
        before = time.perf_counter()
        for group in groups:
            if group.shape not in self._starts:
                begin = self._rounds.start if group.shape.batch == self._batch else self._begin_newcomers
                self._starts[group.shape] = Start(begin, group.prompts, group.keys, group.shape)
            # Behind the first start, when target and draft are at work on all rows.
            if self._round is None:
                self._round = Recording(self._rounds.round, self._device)
        return time.perf_counter() - before

    def _begin_newcomers(self, prompts: Prompts, keys: Tensor) -> None:
        self._newcomers.start(prompts, keys)
        self._rounds.refill(self._replaced, self._batch, self._capacity)
        self._rounds.lists.copy_rows(self._newcomers.lists, self._replaced)
        self._rounds.statistics.copy_rows(self._newcomers.statistics, self._replaced)

    def _replace(self, rows: list[int], group: _Group) -> None:
        """Let a group begin in rows that are finished, as many as it has members."""
        # Prompts that stand in go where the first one goes, as the first one: the same is written twice.
        missing = self._n_newcomers - len(rows)
        replaced = RowCopy.of([*range(len(rows)), *[0] * missing], [*rows, *rows[:1] * missing], self._device)
        self._replaced.take.copy_(replaced.take)
        self._replaced.put.copy_(replaced.put)
        self._starts[group.shape].run(group.prompts, group.keys)

    def _free_rows(self, count: int) -> list[int]:
        """Run rounds until `count` rows are finished, and name as many."""
        assert self._round is not None
        while True:
            missing = self._rounds.lists.missing()
            # Before so many tokens are written, so many rows cannot be finished.
            needed = sorted(missing)[count - 1]
            if needed == 0:
                return [row for row, tokens in enumerate(missing) if tokens == 0][:count]
            for _ in range(math.ceil(needed / self._rounds.most_tokens)):
                self._round()
