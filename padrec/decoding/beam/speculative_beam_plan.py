"""The sizes of a speculative beam search."""

import math
from dataclasses import dataclass

from padrec.catalog import CatalogTrie
from padrec.decoding.beam.beam_plan import level_size


@dataclass(frozen=True)
class SpeculativeBeamPlan:
    """The sizes of a speculative beam search."""

    level_sizes: tuple[int, ...]  # prefixes of 1 … L codes in the catalog, [L]
    children: tuple[int, ...]  # the most children of a prefix of 0 … L - 1 codes, [L]
    width: int  # W, prefixes that the target keeps of each length
    draft_width: int  # N, the most prefixes that the draft proposes of each length
    renormalise: bool = False  # see `BeamDecoder`
    reads_features: bool = False  # whether the draft waits for the first pass; see `BeamDraft`

    @classmethod
    def of(
        cls, trie: CatalogTrie, width: int, draft_width: int, renormalise: bool = False, reads_features: bool = False
    ) -> "SpeculativeBeamPlan":
        """The sizes for a catalog."""
        sizes = tuple(level_size(trie, level) for level in range(1, trie.n_slots + 1))
        children = tuple(int(trie.descendants(level, level + 1).max()) for level in range(trie.n_slots))
        return cls(sizes, children, width, draft_width, renormalise, reads_features)

    @property
    def n_slots(self) -> int:
        """L, codes of an item and the most rounds: each adds at least one code."""
        return len(self.level_sizes)

    @property
    def widths(self) -> tuple[int, ...]:
        """Prefixes of 1 … L codes in the draft's own search from the prompt on, `[L]`."""
        return tuple(min(self.draft_width, size) for size in self.level_sizes)

    def drafted(self, round_: int) -> tuple[int, ...]:
        """Prefixes that round 0 … L - 1 drafts of each length, shortest first; complete items are not read."""
        if round_ > 0:
            return (self.draft_width,) * (self.n_slots - 1 - round_)
        return () if self.reads_features else self.widths[:-1]

    def first(self, round_: int) -> int:
        """Tokens after each prompt that the rounds before read: all but the first read the beam, too."""
        return sum(sum(self.drafted(earlier)) for earlier in range(round_)) + self.width * max(0, round_ - 1)

    def most_children(self, round_: int, step: int) -> int:
        """Children that no prefix has more of at a step of a round, in which rows are at levels of their own.

        Padded, so that a step always has as many children as it keeps.
        """
        most = self.children[step] if round_ == 0 else max(self.children[min(round_ + step, self.n_slots - 1) :])
        beam = 1 if round_ == step == 0 else self.width
        return max(most, math.ceil(max(self.width, self.draft_width) / beam)) if step == 0 else most
