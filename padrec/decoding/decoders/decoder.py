"""The protocol of decoders, which are the arms of a comparison."""

from abc import ABC, abstractmethod

from padrec.decoding.layers.runner import TargetRunner
from padrec.decoding.lists.request import ListRequest, Recommendations
from padrec.decoding.rounds.decoding_session import DecodingSession

# The search of decoders that write a list token by token, each item after those before it.
LIST_SEARCH = "list"


class Decoder(ABC):
    """A way to recommend with a target; arms of a comparison are decoders.

    Attributes:
        lossless: whether its lists are the target's own.
        search: names what is searched for: lossless decoders of one search return the same lists, those of two may not.
    """

    lossless: bool
    search: str

    @abstractmethod
    def max_depth(self, request: ListRequest) -> int:
        """D, the deepest proposal of a round: a trace's counts by depth are so wide; 0 where nothing is proposed."""

    @abstractmethod
    def bind(self, runner: TargetRunner, request: ListRequest) -> DecodingSession[Recommendations]:
        """Load what is needed beside the target, before anything is timed.

        Raises:
            InputError: it cannot be loaded, belongs to another target or vocabulary, or cannot serve the request.
        """
