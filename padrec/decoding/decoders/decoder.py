"""The protocol of decoders, which are the arms of a comparison."""

from typing import Protocol

import torch

from padrec.catalog import SemanticIDVocabulary
from padrec.decoding.layers.runner import Prompts, TargetRunner
from padrec.decoding.lists.list_request import ListRequest
from padrec.decoding.lists.recommendations import DecodingTrace, Recommendations

# The search of decoders that write a list token by token, each item behind those before it.
LIST_SEARCH = "list"


class Decoder(Protocol):
    """Writes lists with a target; arms of a comparison are decoders."""

    @property
    def lossless(self) -> bool:
        """Whether its lists are the target's own."""
        ...

    @property
    def search(self) -> str:
        """Names what is searched for: lossless decoders of one search return the same lists, those of two may not."""
        ...

    def max_depth(self, request: ListRequest) -> int:
        """D, the deepest proposal of a round: a trace's counts by depth are so wide; 0 where nothing is proposed."""
        ...

    def prepare(self, runner: TargetRunner, vocabulary: SemanticIDVocabulary) -> None:
        """Load what the decoder needs beside the target, before anything is timed.

        Raises:
            InputError: it cannot be loaded, or belongs to another target or vocabulary.
        """
        ...

    def decode(
        self, runner: TargetRunner, prompts: Prompts, request: ListRequest, generator: torch.Generator
    ) -> tuple[Recommendations, DecodingTrace]:
        """Write one list for each prompt.

        Args:
            runner: the target.
            prompts: what the target reads first, `[B]` rows.
            request: what to generate.
            generator: on the CPU; the only source of randomness.
        """
        ...
