"""What another batch size changes in low precision."""

from dataclasses import dataclass, replace

import torch

from padrec.catalog import InputError
from padrec.decoding.decoders.decoder import Decoder
from padrec.decoding.decoders.wrapping import WrappingDecoder
from padrec.decoding.layers.prompts import Prompts
from padrec.decoding.layers.runner import TargetRunner
from padrec.decoding.lists.decoding_trace import DecodingTrace
from padrec.decoding.lists.list_request import ListRequest
from padrec.decoding.lists.recommendations import Recommendations
from padrec.decoding.rounds.decoding_session import DecodingSession


class RepeatedDecoder(WrappingDecoder):
    """Decodes every prompt several times at once and returns what its first copy wrote.

    The other copies change nothing but the size of the batch. In low precision that alone can change lists, because
    sums are added up in another order: the share of other lists that this arm shows is what numerics do to any arm.

    Args:
        decoder: what decodes.
        copies: rows for each prompt, at least 2.

    Raises:
        InputError: fewer than two copies.
    """

    def __init__(self, decoder: Decoder, copies: int = 2) -> None:
        if copies < 2:
            raise InputError(f"copies {copies}: expected at least 2")
        super().__init__(decoder)
        self._copies = copies

    def bind(self, runner: TargetRunner, request: ListRequest) -> DecodingSession[Recommendations]:
        """See `Decoder.bind`."""
        return _RepeatedSession(self._decoder.bind(runner, request), self._copies)


@dataclass(frozen=True)
class _RepeatedSession:
    """See `DecodingSession`."""

    session: DecodingSession[Recommendations]
    copies: int

    def decode(self, prompts: Prompts, generator: torch.Generator) -> tuple[Recommendations, DecodingTrace]:
        """See `DecodingSession.decode`. Proposals are counted over all copies."""
        # The copies come after the prompts, so that these get the random keys that they get without copies.
        repeated = Prompts(
            prompts.tokens.repeat(self.copies, 1),
            prompts.slots.repeat(self.copies, 1),
            prompts.lengths.repeat(self.copies),
            excluded=None if prompts.excluded is None else prompts.excluded.repeat(self.copies, 1),
        )
        lists, trace = self.session.decode(repeated, generator)
        n = len(prompts.tokens)
        first = Recommendations(lists.leaves[:n], lists.tokens[:n], lists.log_probs[:n])
        target_passes, draft_passes, tokens = trace.target_passes[:n], trace.draft_passes[:n], trace.tokens[:n]
        return first, replace(trace, target_passes=target_passes, draft_passes=draft_passes, tokens=tokens)
