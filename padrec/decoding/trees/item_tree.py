"""The tree of a draft with one pass an item."""

from collections.abc import Callable
from functools import partial
from typing import Annotated

import torch
from torch import Tensor

from padrec.catalog import PositiveFloat, PositiveInt, Range, check_arguments
from padrec.decoding.device.compiled import compiled
from padrec.decoding.lists.sampling import Choice, Guess
from padrec.decoding.lists.tensor_record import pick
from padrec.decoding.lists.token_tree import TokenTree
from padrec.decoding.trees.draft import Draft
from padrec.decoding.trees.dynamic_tree import DynamicTree
from padrec.decoding.trees.tree_expansion import ItemDraftSteps, TreeContext
from padrec.decoding.trees.tree_growth import TreeShape


class ItemTree(DynamicTree):
    """A dynamic tree for a draft whose passes after the root stand at items' first codes alone.

    Roots lie in any slot. So the levels before the second pass are as many as an item has tokens, and rows that reach
    the next first code sooner stay there until the others do: their trees are up to T - 1 levels less deep.

    Args:
        depth: D, the deepest proposal, at least 1; a round has a draft pass for every T of it.
        width: see `DynamicTree`.
        nodes: see `DynamicTree`.
        greedy_temperature: see `DynamicTree`.
        item_length: T, tokens of an item, the separator included.

    Raises:
        InputError: a value below its minimum, or a tree that is too large.
    """

    item_length: int

    def __init__(
        self,
        depth: PositiveInt = 20,
        width: PositiveInt = 4,
        nodes: Annotated[int, Range("at least 2", lambda nodes: nodes >= 2)] = 64,
        greedy_temperature: PositiveFloat = 1.0,
        item_length: PositiveInt = 5,
    ) -> None:
        check_arguments(ItemTree, locals())
        super().__init__(depth, width, nodes, greedy_temperature)
        self.item_length = item_length
        self.draft_passes = 1 + (depth - 1) // item_length
        self.draft_rows = (self.draft_passes - 1) * width

    def reach(self, slots: Tensor) -> Tensor:
        """See `TreeExpansion.reach`."""
        return _depths(torch.full_like(slots, self.depth), slots, self.item_length)

    def expand(self, context: TreeContext) -> TokenTree:
        """See `TreeExpansion.expand`."""
        steps, choice, length = context.steps, context.choice, self.item_length
        assert isinstance(steps, ItemDraftSteps)  # see SpeculativeDecoder
        guess = Guess.of(choice.sampling, self.greedy_temperature)
        shape = TreeShape(self.width, self.depth, self.nodes)
        growth = context.operations.grow(context.root, context.state, context.constraint, guess, shape)
        places, slots, stays, noise = _schedule(context.state.slot, choice, length, self.depth)
        logits = steps.root_logits()[:, None]
        for level in range(self.depth):
            if level > 0 and level % length == 0:
                logits = steps.read_firsts(growth.frontier, growth.parents, growth.slots, places[level])
            elif level > 0:
                logits = steps.follow(growth.frontier, growth.parents, slots[level])
            held = stays[level] if 0 < level < length else None
            growth.grow(logits, None if noise is None else noise[:, level], held)
        return growth.tree()


def tree_for(draft: Draft) -> Callable[..., DynamicTree]:
    """`DynamicTree`, or `ItemTree` for a draft that needs it; both are given depth, width, nodes and temperature."""
    if draft.item_length is None:
        return DynamicTree
    return partial(ItemTree, item_length=draft.item_length)


@compiled
def _schedule(roots: Tensor, choice: Choice, length: int, levels: int) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Where rows are at each level, by the slots of their roots, int64 `[B]`.

    Returns:
        Of the nodes that a level reads: their places, 0 right after the root, and slots, both int64 `[levels, B]`;
        whether they are first codes, at which rows stay before the second pass, bool `[levels, B]`; and the noise of
        the tokens after them, `[B, levels, V]`.
    """
    level = torch.arange(levels, device=roots.device)[:, None]
    depths, noise = _depths(level, roots, length), choice.noise
    if noise is not None:
        noise = pick(noise, depths.t())
    slots = (depths - _to_first(roots, length)) % length
    return depths - 1, slots, slots == 0, noise


def _depths(levels: Tensor, roots: Tensor, length: int) -> Tensor:
    """The depth of the nodes that a level reads, after roots in these slots, int64."""
    to_first = _to_first(roots, length)
    return torch.where(levels < length, torch.minimum(levels, to_first), levels - length + to_first)


def _to_first(slots: Tensor, length: int) -> Tensor:
    """How far the next item's first code is from roots in these slots, int64 `[B]`, from 1 to `length`."""
    return (length - slots).clamp(min=1)
