"""Which prefixes each target pass of a beam search reads, without a draft and with one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from padrec.catalog import CatalogTrie, InputError

# Prefixes of 1, 2 and more codes that a draft proposes for each one that the target keeps: with fewer of the first
# length many users need all rounds, and more of the others cost more than they save (docs/results/atspeed/notes.md).
_PROPOSED = (4.0, 5.6, 8.0)


@dataclass(frozen=True)
class BeamPass:
    """One target pass: it reads the beam and possibly all its descendants for some levels."""

    level: int  # codes of a prefix in the beam; 0 if the pass begins with the prompt
    # Nodes read per level, the beam first; for later levels a bound, the descendants of the nodes that have the most.
    widths: tuple[int, ...]
    children: tuple[int, ...]  # the most children of a node, for each of these levels

    @property
    def n_nodes(self) -> int:
        """Nodes of all levels."""
        return sum(self.widths)


def plan_passes(trie: CatalogTrie, beam_width: int, look_ahead: int) -> tuple[BeamPass, ...]:
    """The fewest passes that each read at most `look_ahead` nodes besides the beam.

    Each pass reads ahead as far as it can. That is optimal: the prefixes of a later beam have no more descendants than
    those that they extend, so a pass that begins later ends no earlier. With `look_ahead` 0 there is one for each slot.
    """
    passes: list[BeamPass] = []
    level = 0
    while level < trie.n_slots:
        passes.append(_longest_pass(trie, level, beam_width, look_ahead))
        level += len(passes[-1].widths)
    return tuple(passes)


def tokens_after_prompt(plan: tuple[BeamPass, ...]) -> int:
    """R, the most tokens that the passes read after each prompt."""
    return sum(stage.n_nodes for stage in plan) - 1  # the root is the prompt's last token


def level_size(trie: CatalogTrie, level: int) -> int:
    """Prefixes with `level` codes in the catalog."""
    return trie.level_starts[level + 1] - trie.level_starts[level]


def _longest_pass(trie: CatalogTrie, level: int, beam_width: int, look_ahead: int) -> BeamPass:
    beam = min(beam_width, level_size(trie, level))
    widths = [beam]
    for below in range(level + 1, trie.n_slots):
        most = int(trie.descendants(level, below).topk(beam).values.sum())
        if sum(widths[1:]) + most > look_ahead:
            break
        widths.append(most)
    levels = range(level, level + len(widths))
    children = (int(trie.descendants(above, above + 1).max()) for above in levels)
    return BeamPass(level, tuple(widths), tuple(children))


@dataclass(frozen=True)
class SpeculativeBeamPlan:
    """The sizes of a speculative beam search."""

    level_sizes: tuple[int, ...]  # prefixes of 1 … L codes in the catalog, [L]
    children: tuple[int, ...]  # the most children of a prefix of 0 … L - 1 codes, [L]
    width: int  # W, prefixes that the target keeps of each length
    draft_widths: tuple[int, ...]  # N of 1 … L - 1 codes, the most prefixes that the draft proposes, [L - 1]
    renormalise: bool = False  # see `BeamDecoder`
    reads_features: bool = False  # whether the draft waits for the first pass; see `BeamDraft`

    @classmethod
    def of(
        cls,
        trie: CatalogTrie,
        width: int,
        draft_width: int | Sequence[int] | None,
        renormalise: bool = False,
        reads_features: bool = False,
    ) -> "SpeculativeBeamPlan":
        """The sizes for a catalog; see `SpeculativeBeamDecoder`.

        Raises:
            InputError: `draft_width` is a list without a number for each length from 1 to L - 1.
        """
        lengths = trie.n_slots - 1
        if draft_width is None:
            draft_width = [math.ceil(width * _PROPOSED[min(at, len(_PROPOSED) - 1)]) for at in range(lengths)]
        draft_widths = (draft_width,) * lengths if isinstance(draft_width, int) else tuple(draft_width)
        if len(draft_widths) != lengths:
            raise InputError(f"draft_width {draft_width}: expected a number, or one for each of {lengths} lengths")
        sizes = tuple(level_size(trie, level) for level in range(1, trie.n_slots + 1))
        children = tuple(int(trie.descendants(level, level + 1).max()) for level in range(trie.n_slots))
        return cls(sizes, children, width, draft_widths, renormalise, reads_features)

    @property
    def n_slots(self) -> int:
        """L, codes of an item and the most rounds: each adds at least one code."""
        return len(self.level_sizes)

    @property
    def widest(self) -> int:
        """The most prefixes that are proposed of any length; 1 where no length is drafted."""
        return max(self.draft_widths, default=1)

    def drafted(self, round_: int) -> tuple[int, ...]:
        """Prefixes that round 0 … L - 1 drafts of each length, shortest first; complete items are not read."""
        if round_ > 0:  # rows are at lengths of their own
            return (self.widest,) * (self.n_slots - 1 - round_)
        return () if self.reads_features else tuple(map(min, self.draft_widths, self.level_sizes))

    def first(self, round_: int) -> int:
        """Tokens after each prompt that the rounds before read: all but the first read the beam, too."""
        return sum(sum(self.drafted(earlier)) for earlier in range(round_)) + self.width * max(0, round_ - 1)

    def most_children(self, round_: int, step: int) -> int:
        """Children that no prefix has more of at a step of a round, in which rows are at levels of their own.

        Padded, so that target and draft always have as many children as they keep.
        """
        most = self.children[step] if round_ == 0 else max(self.children[min(round_ + step, self.n_slots - 1) :])
        drafted = (*self.drafted(round_), 1)
        if step > 0:
            return max(most, math.ceil(drafted[step] / drafted[step - 1]))
        beam = 1 if round_ == 0 else self.width
        return max(most, math.ceil(max(self.width, drafted[0]) / beam))
