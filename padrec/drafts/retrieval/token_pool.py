"""Pools: earlier texts of a target, from which a draft retrieves."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from padrec.catalog import InputError, PositiveInt, check_arguments
from padrec.catalog.tensor_file import read_tensors, write_tensors
from padrec.decoding.lists.sampling import mix64
from padrec.decoding.lists.tensor_record import TensorRecord

_FORMAT = "padrec token pool 1"
END = -1
"""Follows every text of a pool."""

# Added texts wait in a list until they are one part in this many of the pool, and as much is evicted beyond the bound:
# many insertions share the cost of moving the texts.
_SLACK = 8


@dataclass(frozen=True)
class PoolTexts(TensorRecord):
    """The texts of a pool, oldest first."""

    tokens: Tensor  # the texts one after another, each with `END` after it, int32 [T]
    lengths: Tensor  # tokens of each text with its `END`, int64 [n]
    groups: Tensor  # group of each text, int64 [n]
    counts: Tensor  # how often each text was added, int64 [n]
    hits: Tensor  # how often a proposal from each text was right, int64 [n]

    @classmethod
    def of(cls, texts: Sequence[Sequence[int]], groups: Sequence[int]) -> "PoolTexts":
        """New texts, each added once."""
        tokens = torch.tensor([token for text in texts for token in (*text, END)], dtype=torch.int32)
        lengths = torch.tensor([len(text) + 1 for text in texts], dtype=torch.long)
        once = torch.ones_like(lengths)
        return cls(tokens, lengths, torch.tensor(groups, dtype=torch.long), once, torch.zeros_like(once))

    def appended(self, newer: "PoolTexts") -> "PoolTexts":
        """These texts, then newer ones."""
        return self.map(lambda *both: torch.cat(both), newer)

    def kept(self, which: Tensor) -> "PoolTexts":
        """The texts that a mask selects, bool `[n]`."""
        tokens = self.tokens[which.repeat_interleave(self.lengths)]
        return PoolTexts(tokens, self.lengths[which], self.groups[which], self.counts[which], self.hits[which])

    def joined(self) -> "PoolTexts":
        """Equal texts of one group as one: the newest, with the sum of counts and hits."""
        _, same = self._fingerprints().unique(return_inverse=True)
        newest = torch.zeros_like(same).scatter_reduce(0, same, torch.arange(len(same)), "amax")  # of each fingerprint
        counts, hits = (
            torch.zeros_like(values).index_add(0, newest[same], values) for values in (self.counts, self.hits)
        )
        is_newest = newest[same] == torch.arange(len(same))
        return replace(self, counts=counts, hits=hits).kept(is_newest)

    def _fingerprints(self) -> Tensor:
        """A 64-bit hash of each text and its group, int64 `[n]`."""
        place = torch.arange(len(self.tokens)) - (self.lengths.cumsum(0) - self.lengths).repeat_interleave(self.lengths)
        mixed = mix64(mix64(place + 1) + self.tokens.long())
        text = torch.arange(len(self.lengths)).repeat_interleave(self.lengths)
        return mix64(torch.zeros_like(self.lengths).index_add(0, text, mixed) + mix64(self.groups))


class TokenPool:
    """Earlier texts of a target as tokens, in groups, within a bound of memory.

    A text that is added again counts twice. When the pool is full, the texts from which the fewest right proposals came
    go first, of equally many the oldest; then all such counts are halved, so that old merits fade.

    Args:
        max_tokens: most tokens that are kept, each text with one more that marks its end.
        n_groups: groups of texts; a draft looks in a request's own group before it looks in all of them.

    Attributes:
        settings: how the pool was made, as JSON can hold it; reports show it.
        tensors: what tells a prompt's group, by name; see `PromptGroups`.

    Raises:
        InputError: an argument out of range.
    """

    def __init__(self, max_tokens: PositiveInt = 1_000_000, n_groups: PositiveInt = 1) -> None:
        check_arguments(TokenPool, locals())
        self.max_tokens, self.n_groups = max_tokens, n_groups
        self.settings: dict[str, Any] = {}
        self.tensors: dict[str, Tensor] = {}
        self._texts = PoolTexts.of([], [])
        self._new: list[tuple[Sequence[int], int]] = []
        self._new_tokens = 0

    def add(self, text: Sequence[int], group: int = 0) -> None:
        """Add a text; its first `max_tokens - 1` tokens, if it has more.

        Args:
            text: token ids, at least one; the token before an answer makes a good first one, because it tells where
                answers begin.
            group: 0 … n_groups - 1.

        Raises:
            InputError: no token, a negative one, or an unknown group.
        """
        if not 0 <= group < self.n_groups or len(text) == 0 or min(text) < 0:
            raise InputError(
                f"a text of {len(text)} tokens from {min(text, default=0)} on in group {group}: expected tokens of at "
                f"least 0 and a group of 0 … {self.n_groups - 1}"
            )
        self._new.append((text[: self.max_tokens - 1], group))
        self._new_tokens += len(text) + 1
        if self._new_tokens * _SLACK >= self.max_tokens:
            self._settle()

    @property
    def settled(self) -> PoolTexts:
        """The texts without those that still wait."""
        return self._texts

    @property
    def waiting(self) -> int:
        """Tokens of the texts that still wait."""
        return self._new_tokens

    @property
    def texts(self) -> PoolTexts:
        """All texts."""
        self._settle()
        return self._texts

    def credit(self, hits: Tensor) -> None:
        """Add to the hits of the texts that `settled` holds, int64 `[n]`."""
        self._texts = replace(self._texts, hits=self._texts.hits + hits)

    def _settle(self) -> None:
        if not self._new:
            return
        new = PoolTexts.of([text for text, _ in self._new], [group for _, group in self._new])
        self._new, self._new_tokens = [], 0
        self._texts = self._texts.appended(new).joined()
        if len(self._texts.tokens) > self.max_tokens:
            self._evict(self.max_tokens - self.max_tokens // _SLACK)

    def _evict(self, most_tokens: int) -> None:
        texts = self._texts
        age = torch.arange(len(texts.lengths)).flip(0)
        order = (texts.hits * len(age) - age).argsort(descending=True)  # the best first
        fits = texts.lengths[order].cumsum(0) <= most_tokens
        which = torch.zeros(len(order), dtype=torch.bool).scatter(0, order, fits)
        kept = texts.kept(which)
        self._texts = replace(kept, hits=kept.hits // 2)

    def save(self, path: str | Path, overwrite: bool = False) -> None:
        """Write the pool to a safetensors file, as a whole or not at all.

        Args:
            path: the file.
            overwrite: whether to replace a file that is there already.

        Raises:
            InputError: it is there already, or cannot be written.
        """
        header = {"max_tokens": self.max_tokens, "n_groups": self.n_groups, "settings": self.settings}
        tensors = {f"text.{name}": value for name, value in vars(self.texts).items()} | self.tensors
        write_tensors(Path(path), tensors, {"format": _FORMAT, "pool": json.dumps(header)}, overwrite)

    @classmethod
    def load(cls, path: str | Path) -> "TokenPool":
        """Read a pool that `save` wrote.

        Raises:
            InputError: the file is missing, damaged, or no pool.
        """
        tensors, metadata = read_tensors(Path(path))
        if metadata.get("format") != _FORMAT:
            raise InputError(f"{path}: format {metadata.get('format')!r}, expected {_FORMAT!r}, as a pool is saved")
        header: Mapping[str, Any] = json.loads(metadata["pool"])
        pool = cls(header["max_tokens"], header["n_groups"])
        pool.settings = header["settings"]
        pool._texts = PoolTexts(**{name: tensors.pop(f"text.{name}") for name in vars(pool._texts)})
        pool.tensors = tensors
        return pool
