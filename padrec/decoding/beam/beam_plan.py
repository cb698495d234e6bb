"""Which prefixes each target pass of a beam search reads."""

from dataclasses import dataclass

from padrec.catalog import CatalogTrie


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
