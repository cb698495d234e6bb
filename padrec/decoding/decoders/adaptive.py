"""Speculation whose trees shrink as batches grow."""

from collections.abc import Iterable, Sequence

from padrec.catalog import InputError, PositiveFloat, check_arguments
from padrec.decoding.decoders.fastest import FastestDecoder
from padrec.decoding.decoders.speculative import AutoregressiveDecoder, SpeculativeDecoder
from padrec.decoding.lists.request import ListRequest
from padrec.decoding.trees.draft import Draft
from padrec.decoding.trees.dynamic_tree import Chain, DynamicTree
from padrec.decoding.trees.item_tree import ItemTree
from padrec.decoding.trees.tree_expansion import TreeExpansion

# Trees of at most this many nodes are also tried without forced tokens.
_FEW_NODES = 32

# Depth, width and nodes of the default trees, and depths of the chains. At this sharp temperature deep, narrow trees
# beat shallow, wide ones with as many nodes.
_TREES = ((10, 10, 116), (12, 6, 52), (10, 3, 32), (10, 2, 16), (5, 6, 16), (8, 2, 12))
_CHAINS = (8, 5, 3, 2)
# Passes, width and nodes of the trees of drafts with one pass an item, whose depth costs little.
_ITEM_TREES = ((4, 4, 64), (4, 3, 32), (4, 2, 24), (3, 2, 16), (3, 1, 15), (2, 2, 12), (2, 1, 8))
# Small trees of a good draft gain much, and a weak draft loses little (docs/decoding.md, Trees).
_GREEDY_TEMPERATURE = 0.5

# Tree nodes of all rows in one pass.
_MOST_TOKENS = 512


class AdaptiveDecoder(FastestDecoder):
    """Speculates with the tree that is fastest for the batch size, or not at all where no tree pays.

    Small trees are tried with and without forced tokens, since in a large batch every node counts. Trees with more than
    512 nodes over all rows are not tried: a pass that large costs as much as its tokens.

    Args:
        draft: proposes tokens.
        expansions: trees to choose from; None gives dynamic trees of 116, 52, 32, 16 (two depths) and 12 nodes and
            chains of depth 8, 5, 3 and 2, of which with forced tokens the larger ones fill whole GPU tiles, and 32 rows
            of the chain of 3 make a pass of 128 tokens, the largest that the kernels compute. Drafts with one pass an
            item get an `ItemTree` each of 64, 32, 24, 16, 15, 12 and 8 nodes.
        greedy_temperature: of the default trees, see `DynamicTree`; None is 0.5. Use less for a better draft.

    Raises:
        InputError: no expansion; `greedy_temperature` not above 0, or given beside expansions, which have their own.
    """

    def __init__(
        self,
        draft: Draft,
        expansions: Sequence[TreeExpansion] | None = None,
        greedy_temperature: PositiveFloat | None = None,
    ) -> None:
        check_arguments(AdaptiveDecoder, locals())
        if expansions is not None and greedy_temperature is not None:
            raise InputError(f"greedy_temperature {greedy_temperature} beside expansions: expected one of the two")
        if expansions is None:
            temperature = _GREEDY_TEMPERATURE if greedy_temperature is None else greedy_temperature
            expansions = _default_trees(draft, temperature)
        if not expansions:
            raise InputError("expansions []: expected at least one tree expansion")
        alike = [f"{type(tree).__name__} of {tree.nodes} nodes, depth {tree.depth}" for tree in expansions]
        names = [f"{name}, expansion {at}" if alike.count(name) > 1 else name for at, name in enumerate(alike)]
        trees_by_name = dict(zip(names, expansions, strict=True))
        self._speculative = {
            **{f"{name}, with forced tokens": SpeculativeDecoder(draft, tree) for name, tree in trees_by_name.items()},
            **{name: SpeculativeDecoder(draft, tree, forced_tokens=False) for name, tree in trees_by_name.items()},
            "forced tokens alone": AutoregressiveDecoder(forced_tokens=True),
            "no speculation": AutoregressiveDecoder(),
        }
        super().__init__(self._speculative)

    def candidates(self, request: ListRequest, batch: int) -> Iterable[str]:
        """Leaves out trees that cannot pay; see `FastestDecoder.candidates`."""
        forces = request.constraint.longest_run > 0

        def may_pay(decoder: SpeculativeDecoder) -> bool:
            if decoder.forced_tokens and not forces:
                return False  # the same as without
            if isinstance(decoder, AutoregressiveDecoder):
                return True
            # Large trees hardly notice their forced tokens.
            if forces and not decoder.forced_tokens and decoder.expansion.nodes > _FEW_NODES:
                return False
            return decoder.nodes(request) * batch <= _MOST_TOKENS

        return [name for name, decoder in self._speculative.items() if may_pay(decoder)]


def _default_trees(draft: Draft, temperature: float) -> list[TreeExpansion]:
    length = draft.item_length
    if length is None:
        return [*(DynamicTree(*size, temperature) for size in _TREES), *map(Chain, _CHAINS)]
    return [ItemTree(passes * length, width, nodes, temperature, length) for passes, width, nodes in _ITEM_TREES]
