"""What decoders that give all work to another one have in common."""

from padrec.decoding.decoders.decoder import Decoder
from padrec.decoding.lists.request import ListRequest


class WrappingDecoder(Decoder):
    """Is as lossless and searches for the same as the decoder that it calls; see `Decoder`.

    Args:
        decoder: what decodes.
    """

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self.lossless, self.search = decoder.lossless, decoder.search

    def max_depth(self, request: ListRequest) -> int:
        """See `Decoder.max_depth`."""
        return self._decoder.max_depth(request)
