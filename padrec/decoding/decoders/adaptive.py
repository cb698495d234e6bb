"""The decoder that suits the batch size: trees shrink as batches grow."""

from collections.abc import Mapping, Sequence

from padrec.catalog import InputError
from padrec.decoding.decoders.autoregressive import AutoregressiveDecoder
from padrec.decoding.decoders.decoder import Decoder
from padrec.decoding.decoders.fastest import FastestDecoder
from padrec.decoding.decoders.speculative import SpeculativeDecoder
from padrec.decoding.lists.request import ListRequest
from padrec.decoding.trees.draft import Draft
from padrec.decoding.trees.dynamic_tree import Chain, DynamicTree
from padrec.decoding.trees.tree_expansion import TreeExpansion

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
