"""The decoder that suits the batch size: trees shrink as batches grow."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from padrec.catalog import InputError, SemanticIDVocabulary
from padrec.decoding.decoders.autoregressive import AutoregressiveDecoder
from padrec.decoding.decoders.decoder import LIST_SEARCH, Decoder
from padrec.decoding.decoders.speculative import SpeculativeDecoder
from padrec.decoding.layers.runner import Prompts, TargetRunner
from padrec.decoding.lists.list_request import ListRequest
from padrec.decoding.lists.recommendations import DecodingTrace, Recommendations
from padrec.decoding.trees.chain import Chain
from padrec.decoding.trees.draft import Draft, TreeExpansion
from padrec.decoding.trees.dynamic_tree import DynamicTree

_logger = logging.getLogger(__name__)

# A tree of at most so many nodes is tried without forced tokens too.
_FEW_NODES = 32

# The trees that are chosen among: depth, width and nodes; and the depths of the chains.
# With guesses as sharp as below a deep and narrow tree is better than a shallow and wide one of as many nodes.
_TREES = ((10, 10, 116), (12, 6, 52), (10, 3, 32), (10, 2, 16), (5, 6, 16), (8, 2, 12))
_CHAINS = (8, 5, 3, 2)
# Small trees of a good draft gain much by it, and a weak draft loses little (docs/decoding.md, Trees).
_GREEDY_TEMPERATURE = 0.5

# Of a pass, in trees of all rows.
_MOST_TOKENS = 512

# Once for what is done for the first time only, and this often for the measurement, whose least counts.
_MEASUREMENTS = 2

# Batches of a size that are tried. One alone says little: how many rounds it takes is up to its slowest list.
_TRIALS = 4

# A decoder that has taken longer than the fastest by this share is tried no more.
_MARGIN = 0.25


class FastestDecoder:
    """Decodes with the fastest of several lossless decoders, which is found out for every batch size it meets.

    The first batch of a size is decoded by all of them before it is decoded for good, the next three by those that
    have taken at most a quarter longer than the fastest. What that costs is not part of the decoding time; it is
    reported as `DecodingTrace.recording_seconds`.

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
        self._trials: dict[tuple[TargetRunner, ListRequest, int], _Trials] = {}

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
        batch = len(prompts.tokens)
        key = (runner, request, batch)
        if key not in self._trials:
            self._trials[key] = _Trials(dict.fromkeys(self.candidates(request, batch), 0.0))
        trials = self._trials[key]
        spent = 0.0 if trials.over else self._try(trials, runner, prompts, request)
        lists, trace = self.decoders[trials.fastest].decode(runner, prompts, request, generator)
        trace = trace.widened(self.max_depth(request))
        return lists, replace(trace, recording_seconds=trace.recording_seconds + spent, decoder=trials.fastest)

    def candidates(self, request: ListRequest, batch: int) -> Mapping[str, Decoder]:
        """The decoders that a batch of this size is tried with, by name."""
        return self.decoders

    def _try(self, trials: "_Trials", runner: TargetRunner, prompts: Prompts, request: ListRequest) -> float:
        """Decode a batch by all that are still in question; returns the seconds that took."""
        spent, seconds = 0.0, {}
        for name in trials.seconds:
            traces = []
            for _ in range(1 + _MEASUREMENTS):
                # The request's own generator must stand where it stood: sampled lists may not depend on this.
                _, trace = self.decoders[name].decode(runner, prompts, request, torch.Generator().manual_seed(0))
                traces.append(trace)
            seconds[name] = min(trace.seconds for trace in traces[1:])
            spent += sum(trace.seconds + trace.recording_seconds for trace in traces)
        trials.add(seconds)
        if trials.over:
            times = ", ".join(f"{name} {1000 * value:.1f} ms" for name, value in trials.seconds.items())
            _logger.info("batches of %d are decoded by %s (%s)", len(prompts.tokens), trials.fastest, times)
        return spent


@dataclass
class _Trials:
    """What the first batches of a size have shown.

    Attributes:
        seconds: of each decoder still in question, by name, for all batches so far.
        batches: their number.
    """

    seconds: dict[str, float]
    batches: int = 0

    @property
    def fastest(self) -> str:
        return min(self.seconds, key=lambda name: self.seconds[name])

    @property
    def over(self) -> bool:
        return self.batches == _TRIALS or (self.batches > 0 and len(self.seconds) == 1)

    def add(self, seconds: Mapping[str, float]) -> None:
        """Count another batch, and leave out what is slower by far."""
        self.batches += 1
        total = {name: before + seconds[name] for name, before in self.seconds.items()}
        most = (1 + _MARGIN) * min(total.values())
        self.seconds = {name: value for name, value in total.items() if value <= most}


class AdaptiveDecoder(FastestDecoder):
    """Speculates with the tree that is fastest for the batch size, or not at all where none is worth its cost.

    Small trees are tried with forced tokens and without, since for a large batch every node has its price. Trees that
    would make the target read more than 512 tokens in a pass are not tried: there a pass costs what its tokens cost.

    Args:
        draft: proposes tokens.
        expansions: trees to choose from; None takes dynamic trees of 116, 52, 32, 16 (of two depths) and 12 nodes and
            chains of depth eight, five, three and two: with their forced tokens the larger ones fill whole tiles of a
            GPU, and 32 rows of the chain of three make a pass of 128 tokens, the largest that is not left to the
            vendor's products.
        greedy_temperature: of the default trees, see `DynamicTree`; None takes 0.5. The better the draft, the lower.

    Raises:
        InputError: no expansion, or a `greedy_temperature` that is not above 0 or stands beside expansions, which have
            their own.
    """

    def __init__(
        self,
        draft: Draft,
        expansions: Sequence[TreeExpansion] | None = None,
        greedy_temperature: float | None = None,
    ) -> None:
        if expansions is not None and greedy_temperature is not None:
            raise InputError(f"greedy_temperature {greedy_temperature} beside expansions: expected one of the two")
        if expansions is None:
            temperature = _GREEDY_TEMPERATURE if greedy_temperature is None else greedy_temperature
            trees = [DynamicTree(*size, greedy_temperature=temperature) for size in _TREES]
            expansions = [*trees, *(Chain(depth) for depth in _CHAINS)]
        if not expansions:
            raise InputError("expansions []: expected at least one tree expansion")
        self._with_forced: dict[str, SpeculativeDecoder] = {}
        self._without_forced: dict[str, SpeculativeDecoder] = {}
        alike = [f"{type(tree).__name__} of {tree.nodes} nodes, depth {tree.depth}" for tree in expansions]
        names = [f"{name}, expansion {at}" if alike.count(name) > 1 else name for at, name in enumerate(alike)]
        for name, expansion in zip(names, expansions, strict=True):
            self._with_forced[f"{name}, with forced tokens"] = SpeculativeDecoder(draft, expansion)
            self._without_forced[name] = SpeculativeDecoder(draft, expansion, forced_tokens=False)
        self._forced_alone = {"forced tokens alone": AutoregressiveDecoder(forced_tokens=True)}
        self._plain = {"no speculation": AutoregressiveDecoder()}
        decoders: dict[str, Decoder] = {**self._with_forced, **self._without_forced}
        decoders |= {**self._forced_alone, **self._plain}
        super().__init__(decoders)

    def candidates(self, request: ListRequest, batch: int) -> Mapping[str, Decoder]:
        """Without trees that cannot pay; see `FastestDecoder.candidates`."""
        forces = request.constraint.longest_run > 0
        large = {name for name, decoder in self._without_forced.items() if decoder.expansion.nodes > _FEW_NODES}
        # Large trees hardly notice their forced tokens; where nothing is forced there is nothing to try with them.
        bare = {name: tree for name, tree in self._without_forced.items() if not (forces and name in large)}
        trees = {**self._with_forced, **bare} if forces else bare
        kept = {name: tree for name, tree in trees.items() if tree.nodes(request) * batch <= _MOST_TOKENS}
        return {**kept, **(self._forced_alone if forces else {}), **self._plain}
