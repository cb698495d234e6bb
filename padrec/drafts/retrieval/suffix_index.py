"""A suffix array over a pool, on the decoding device: what followed a context in earlier texts.

Libraries of suffix structures work on the host, most of them on texts that never change; see
docs/results/laser/notes.md.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from padrec.decoding.device.compiled import compiled
from padrec.decoding.device.early_launch import has_kernels
from padrec.drafts.retrieval.token_pool import END, PoolTexts


class Matches(NamedTuple):
    """Places of a pool after contexts like those of B rows, the longest contexts first."""

    places: Tensor  # of the tokens that followed, int64 [B, M]
    lengths: Tensor  # tokens of each context, int64 [B, M]; 0 where there is no match
    counts: Tensor  # occurrences that each place stands for, float32 [B, M]
    texts: Tensor  # text of each place, int64 [B, M]


class SuffixIndex:
    """All suffixes of a pool's texts in sorted order, so that the occurrences of any context are one range.

    Two binary searches find a range, whatever its size (Manber and Myers 1993); all context lengths are searched at
    once. Order 0 holds all texts; if there are several groups, another one holds each group's texts together. The
    tensors keep their size and place, so that captured work sees what `load` changes.

    Suffixes are ordered by the first tokens, as many as the first power of two from `depth` on: the longest context and
    what is read after it, so that evenly spaced places of a range stand for all of them.

    Attributes:
        tokens: the pool's, each text with `END` after it, int32 `[T]`, padded with `END`.
        hits: right proposals from each text, int64 `[n + 1]`; the last entry takes those that come from no text.
    """

    def __init__(self, max_tokens: int, n_groups: int, depth: int, device: torch.device) -> None:
        self._max_tokens, self._n_groups, self._depth = max_tokens, n_groups, depth
        self._n_orders, self._find_ranges = 1 if n_groups == 1 else 2, find_ranges_for(device)
        self.tokens = torch.full((max_tokens + 2 * depth,), END, dtype=torch.int32, device=device)
        self._text_of = torch.zeros(max_tokens, dtype=torch.int32, device=device)
        self._order = torch.zeros(self._n_orders * max_tokens, dtype=torch.int32, device=device)
        self._bounds = torch.zeros(n_groups, self._n_orders, 2, dtype=torch.long, device=device)
        most_texts = max_tokens // 2 + 1
        self._counts = torch.zeros(most_texts, dtype=torch.float32, device=device)
        self.hits = torch.zeros(most_texts + 1, dtype=torch.long, device=device)

    def load(self, texts: PoolTexts) -> None:
        """Take other texts, at most `max_tokens` tokens."""
        device, n = self.tokens.device, len(texts.tokens)
        lengths, groups = texts.lengths.to(device), texts.groups.to(device)
        self.tokens.fill_(END)
        self.tokens[:n] = texts.tokens.to(device)
        text_of = torch.arange(len(lengths), device=device).repeat_interleave(lengths)
        self._text_of[:n] = text_of
        self._counts[: len(lengths)] = texts.counts.to(device)
        self.hits.zero_()
        rank = suffix_ranks(self.tokens[:n], lengths, self._depth)
        self._order[:n] = rank.argsort(stable=True)
        self._bounds[:, 0] = torch.tensor([0, n], device=device)
        if self._n_orders > 1:
            group_of = groups[text_of]
            self._order[self._max_tokens : self._max_tokens + n] = (group_of * (n + 1) + rank).argsort(stable=True)
            ends = torch.bincount(group_of, minlength=self._n_groups).cumsum(0)
            self._bounds[:, 1, 1] = self._max_tokens + ends
            self._bounds[:, 1, 0] = self._max_tokens + torch.cat([ends.new_zeros(1), ends[:-1]])

    def find(self, context: Tensor, known: Tensor, groups: Tensor, places: int) -> Matches:
        """Find up to M places after the longest parts of a context, then after shorter ones.

        A range of more than M occurrences gives M evenly spaced ones. The context is the last L tokens of each row,
        int64 `[B, L]`, at most `depth`; `known` says how many of them there are, int64 `[B]`.
        """
        low, high = self._find_ranges(context, known, self._bounds[groups], self.tokens, self._order)
        return _spread(low, high, self._order, self._text_of, self._counts, places)


def suffix_ranks(tokens: Tensor, lengths: Tensor, depth: int) -> Tensor:
    """The rank of every suffix among all, by its first tokens up to the end of its text; equal ones share it.

    Prefix doubling: ranks by 2 k tokens come from those by k tokens at two places (Manber and Myers 1993), up to the
    first power of two from `depth` on. Texts are those of `PoolTexts`.
    """
    place = torch.arange(len(tokens), device=tokens.device)
    last = (lengths.cumsum(0) - 1).repeat_interleave(lengths)  # place of each text's end
    rank, compared = tokens.long() + 1, 1
    while compared < depth and len(tokens) > 0:
        after = place + compared
        key = rank * (int(rank.max()) + 1) + torch.where(after <= last, rank[after.minimum(last)], 0)
        ordered, order = key.sort()
        rank = torch.empty_like(rank).scatter_(0, order, (ordered.diff(prepend=ordered[:1]) > 0).cumsum(0))
        compared *= 2
    return rank


def find_ranges(context: Tensor, known: Tensor, bounds: Tensor, tokens: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
    """First and last place in the order of suffixes that start with the last 1 … L tokens, `[B, R, L]` each.

    Context and `known` are those of `SuffixIndex.find`, `bounds` those of the R searched orders, int64 `[B, R, 2]`. The
    order says where the suffixes of the tokens begin, both int32.
    """
    longest = context.shape[1]
    place = torch.arange(longest, device=context.device)
    length = place[:, None] + 1
    pattern = context[:, (longest - length + place).clamp(max=longest - 1)].int()  # [B, L, L]
    # The sign of a sum in which each token outweighs all later ones is that of the first difference.
    powers = torch.where(place < length, 2 ** (longest - 1 - place), 0)  # [L, L]
    # Two searches at once: the first suffix that is not smaller, and the first that is larger.
    is_larger = torch.arange(2, device=context.device)
    low = bounds[:, :, None, None, 0].expand(-1, -1, longest, 2)  # [B, R, L, 2]
    end = bounds[:, :, None, None, 1]
    for bit in reversed(range(len(order).bit_length())):
        after = low + (1 << bit)
        start = order[(after - 1).clamp(max=len(order) - 1)]
        read = tokens[start[..., None] + place]  # [B, R, L, 2, L]
        compared = ((read - pattern[:, None, :, None]).sign() * powers[:, None]).sum(-1)
        low = torch.where((compared < is_larger) & (after <= end), after, low)
    found = torch.where(length[:, 0] <= known[:, None], 1, 0)[:, None]  # [B, 1, L]
    return low[..., 0], low[..., 0] + (low[..., 1] - low[..., 0]) * found


def find_ranges_for(device: torch.device) -> Callable[..., tuple[Tensor, Tensor]]:
    """The kernel that does what `find_ranges` does if the device runs it, else `find_ranges`."""
    if has_kernels(device, torch.int32):
        from padrec.drafts.retrieval.triton_suffix_search import triton_find_ranges

        return triton_find_ranges
    return find_ranges


@compiled
def _spread(low: Tensor, high: Tensor, order: Tensor, text_of: Tensor, text_counts: Tensor, places: int) -> Matches:
    _, n_orders, longest = low.shape
    # Segments of the longest contexts first, and of those the ones in the row's group.
    low, counts = (x.flip(1, 2).transpose(1, 2).flatten(1) for x in (low, high - low))  # [B, L * R]
    taken = counts.clamp(max=places)
    ends = taken.cumsum(1)
    number = torch.arange(places, device=low.device)
    segment = (ends[:, None] <= number[:, None]).sum(-1).clamp(max=counts.shape[1] - 1)  # [B, M]
    of, all_of = taken.gather(1, segment), counts.gather(1, segment)
    offset = (number - ends.gather(1, segment) + of).clamp(min=0) * all_of // of.clamp(min=1)
    start = order[(low.gather(1, segment) + offset).clamp(max=len(order) - 1)].long()
    lengths = torch.where(number < ends[:, -1:], longest - segment // n_orders, 0)
    texts = text_of[start.clamp(max=len(text_of) - 1)].long()
    each = torch.where(lengths > 0, text_counts[texts] * all_of / of.clamp(min=1), 0)
    return Matches(start + lengths, lengths, each, texts)
