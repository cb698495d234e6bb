"""Which prefixes each target pass of a beam search reads."""

from dataclasses import dataclass

from padrec.catalog import CatalogTrie


@dataclass(frozen=True)
class BeamPass:
    """One target pass, which reads the beam and may read ahead all that can follow it for some levels.

    Attributes:
        level: codes of a prefix in the beam; 0 where the pass begins with the prompt.
        widths: nodes read of each level, the beam first. Of the levels read ahead it is a bound: what the nodes with
            the most descendants have.
        children: the most children of a node, for each of these levels.
    """

    level: int
    widths: tuple[int, ...]
    children: tuple[int, ...]

    @property
    def n_nodes(self) -> int:
        """Nodes of all levels."""
        return sum(self.widths)


def plan_passes(trie: CatalogTrie, beam_width: int, look_ahead: int) -> tuple[BeamPass, ...]:
    """As few passes as there can be, each of which reads at most `look_ahead` nodes beside the beam.

    Reading ahead as far as possible is best: the prefixes of a later beam have no more descendants than the prefixes
    that they come from, so a pass that begins later ends no earlier.

    Args:
        trie: of the catalog.
        beam_width: prefixes that are kept of each length.
        look_ahead: 0 gives one pass for each slot.
    """
    passes: list[BeamPass] = []
    level = 0
    while level < trie.n_slots:
        passes.append(_longest_pass(trie, level, beam_width, look_ahead))
        level += len(passes[-1].widths)
    return tuple(passes)


def tokens_behind(plan: tuple[BeamPass, ...]) -> int:
    """R, the most tokens that the passes read behind each prompt."""
    return sum(stage.n_nodes for stage in plan) - 1  # the root is the prompt's last token


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


def level_size(trie: CatalogTrie, level: int) -> int:
    """Prefixes of `level` codes that the catalog has."""
    return trie.level_starts[level + 1] - trie.level_starts[level]
