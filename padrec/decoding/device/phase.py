"""The parts of a round, named for profilers."""

from enum import StrEnum

from torch.profiler import record_function


class Phase(StrEnum):
    """What a round's time is spent on.

    Profilers show the names, also those that users run themselves. A phase may lie inside another one; its time is then
    its own. Where a round is replayed from a recording, no names are left: profile a round that is not recorded.
    """

    TARGET_PASS = "target pass"
    DRAFT_PASSES = "draft passes"
    TREE_BUILDING = "tree building"
    ACCEPTANCE = "acceptance"
    KEEPING = "keeping"

    @property
    def label(self) -> str:
        """The name that profilers show."""
        return f"padrec: {self.value}"

    def named(self) -> record_function:
        """A context whose work belongs to this phase."""
        return record_function(self.label)
