"""The choice of a decoder by the batch size, without trials."""

from collections.abc import Iterable

from padrec.decoding.decoders.decoder import Decoder
from padrec.decoding.decoders.fastest import FastestDecoder
from padrec.decoding.lists.request import ListRequest


class BatchSizeDecoder(FastestDecoder):
    """Decodes one prompt with one decoder, and several with another, each known beforehand to be fast there.

    Args:
        one: for a single prompt; lossless.
        several: for larger batches; lossless.

    Raises:
        InputError: see `FastestDecoder`.
    """

    def __init__(self, one: Decoder, several: Decoder) -> None:
        super().__init__({"one": one, "several": several})

    def candidates(self, request: ListRequest, batch: int) -> Iterable[str]:
        """The one for this batch size."""
        return ["one" if batch == 1 else "several"]
