"""The protocol of decoders, the arms of a comparison."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from padrec.decoding.layers.runner import TransformersRunner
from padrec.decoding.lists.request import ListRequest, Recommendations
from padrec.decoding.rounds.decoding_session import DecodingSession

# The search of decoders that write a list token by token, each item after those before it.
LIST_SEARCH = "list"


class Decoder(ABC):
    """A way to recommend with a target.

    Attributes:
        lossless: whether the lists are the target's own.
        search: what is searched for; lossless decoders with the same search return the same lists.
        choices: what it chooses among by measuring, if anything; names that `DecodingTrace.decoder` takes.
        sources: see `Draft.sources`.
        facts: see `Draft.facts`.
    """

    lossless: bool
    search: str
    choices: tuple[str, ...] = ()
    sources: Sequence[str] = ()

    @property
    def facts(self) -> dict[str, Any]:
        """See the class."""
        return {}

    def max_depth(self, request: ListRequest) -> int:
        """D, the deepest proposal of a round, 0 if nothing is proposed; traces have counts up to that depth."""
        return 0

    @abstractmethod
    def bind(self, runner: TransformersRunner, request: ListRequest) -> DecodingSession[Recommendations]:
        """Load what is needed besides the target, before anything is timed.

        Raises:
            InputError: it cannot be loaded, belongs to another target or vocabulary, or cannot serve the request.
        """
