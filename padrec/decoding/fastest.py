"""The decoder that suits the batch size: trees shrink as batches grow."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from padrec.catalog import InputError, SemanticIDVocabulary
from padrec.decoding.autoregressive import AutoregressiveDecoder
from padrec.decoding.decoder import LIST_SEARCH, Decoder, ListRequest
from padrec.decoding.draft import Draft, TreeExpansion
from padrec.decoding.dynamic_tree import DynamicTree
from padrec.decoding.recommendations import DecodingTrace, Recommendations
from padrec.decoding.runner import Prompts, TargetRunner
from padrec.decoding.speculative import SpeculativeDecoder
from padrec.decoding.static_tree import Chain

_logger = logging.getLogger(__name__)

# Once for what is done for the first time only, and this often for the measurement, whose least counts.
_MEASUREMENTS = 2


class FastestDecoder:
    """Decodes with the fastest of several lossless decoders, which is found out for every batch size it meets.

    The first batch of a size is decoded by all of them before it is decoded for good. What that costs is not part of
    the decoding time; it is reported as `DecodingTrace.recording_seconds`.

    Args:
        decoders: by name; all lossless, so that the choice decides over nothing but time.

    Raises:
        InputError: no decoder, or one that is not lossless.
    """

    lossless = True
    search = LIST_SEARCH

    def __init__(self, decoders: Mapping[str, Decoder]) -> None:
        lossy = [name for name, arm in decoders.items() if not arm.lossless or arm.search != LIST_SEARCH]
        if not decoders or lossy:
            what = f"decoders {list(decoders)}, not lossless {lossy}"
            raise InputError(f"{what}: expected lossless decoders of lists, at least one")
        self.decoders = dict(decoders)
        self._chosen: dict[tuple[TargetRunner, ListRequest, int], str] = {}

    def max_depth(self, request: ListRequest) -> int:
        """The deepest proposal of any decoder; see `Decoder.max_depth`."""
        return max(decoder.max_depth(request) for decoder in self.decoders.values())

    def prepare(self, runner: TargetRunner, vocabulary: SemanticIDVocabulary) -> None:
        """Prepare all decoders; see `Decoder.prepare`."""
        for decoder in self.decoders.values():
            decoder.prepare(runner, vocabulary)

    def decode(
        self, runner: TargetRunner, prompts: Prompts, request: ListRequest, generator: torch.Generator
    ) -> tuple[Recommendations, DecodingTrace]:
        """Write one list for each prompt; see `Decoder.decode`."""
        key = (runner, request, len(prompts.tokens))
        spent = 0.0
        if key not in self._chosen:
            self._chosen[key], spent = self._fastest(runner, prompts, request)
        lists, trace = self.decoders[self._chosen[key]].decode(runner, prompts, request, generator)
        trace = trace.widened(self.max_depth(request))
        return lists, replace(trace, recording_seconds=trace.recording_seconds + spent)

    def _fastest(self, runner: TargetRunner, prompts: Prompts, request: ListRequest) -> tuple[str, float]:
        """The name of the fastest decoder for such a batch, and the seconds that finding out took."""
        spent, seconds = 0.0, {}
        for name, decoder in self.decoders.items():
            traces = []
            for _ in range(1 + _MEASUREMENTS):
                # The request's own generator must stand where it stood: sampled lists may not depend on this.
                _, trace = decoder.decode(runner, prompts, request, torch.Generator().manual_seed(0))
                traces.append(trace)
            seconds[name] = min(trace.seconds for trace in traces[1:])
            spent += sum(trace.seconds + trace.recording_seconds for trace in traces)
        best = min(seconds, key=lambda name: seconds[name])
        times = ", ".join(f"{name} {1000 * value:.1f} ms" for name, value in seconds.items())
        _logger.info("batches of %d are decoded by %s (%s)", len(prompts.tokens), best, times)
        return best, spent


class AdaptiveDecoder(FastestDecoder):
    """Speculates with the tree that is fastest for the batch size, or not at all where none is worth its cost.

    Args:
        draft: proposes tokens.
        expansions: trees to choose from; None takes dynamic trees of 112, 48, 16 and 10 nodes and a chain of three:
            with their forced tokens the larger ones fill whole tiles of a GPU.

    Raises:
        InputError: no expansion.
    """

    def __init__(self, draft: Draft, expansions: Sequence[TreeExpansion] | None = None) -> None:
        if expansions is None:
            sizes = ((8, 16, 112), (6, 10, 48), (5, 6, 16), (4, 3, 10))
            expansions = [*(DynamicTree(*size) for size in sizes), Chain(3)]
        if not expansions:
            raise InputError("expansions []: expected at least one tree expansion")
        trees = {
            f"{type(expansion).__name__} of {expansion.nodes} nodes": SpeculativeDecoder(draft, expansion)
            for expansion in expansions
        }
        plain = {
            "forced tokens alone": AutoregressiveDecoder(forced_tokens=True),
            "no speculation": AutoregressiveDecoder(),
        }
        super().__init__({**trees, **plain})
