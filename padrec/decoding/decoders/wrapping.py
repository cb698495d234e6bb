"""What decoders that give all work to another one have in common."""

from padrec.catalog import SemanticIDVocabulary
from padrec.decoding.decoders.decoder import Decoder
from padrec.decoding.layers.runner import TargetRunner
from padrec.decoding.lists.list_request import ListRequest


class WrappingDecoder:
    """Is as lossless and searches for the same as the decoder that it calls; see `Decoder`.

    Args:
        decoder: what decodes.
    """

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder

    @property
    def lossless(self) -> bool:
        """See `Decoder.lossless`."""
        return self._decoder.lossless

    @property
    def search(self) -> str:
        """See `Decoder.search`."""
        return self._decoder.search

    def max_depth(self, request: ListRequest) -> int:
        """See `Decoder.max_depth`."""
        return self._decoder.max_depth(request)

    def prepare(self, runner: TargetRunner, vocabulary: SemanticIDVocabulary) -> None:
        """See `Decoder.prepare`."""
        self._decoder.prepare(runner, vocabulary)
