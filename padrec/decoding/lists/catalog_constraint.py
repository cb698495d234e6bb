"""The catalog constraint: lists of distinct items that exist."""

from copy import copy
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from padrec.catalog import CatalogTrie, InputError, SemanticIDVocabulary
from padrec.decoding.lists.constraint import Continuations
from padrec.decoding.lists.list_state import ListState

_COMMON = 0.01  # share of the leaves


@dataclass(frozen=True)
class CatalogState(ListState):
    """A list's position in the catalog."""

    node: Tensor  # trie node of the current item, int64 [*]; a leaf if its separator comes next
    used: Tensor  # leaves already in the list, int64 [*, K], padded with `n_leaves`
    count: Tensor  # completed items, int64 [*]


class CatalogConstraint:
    """Allows lists of K distinct items of the catalog.

    A node may be followed by its children in the trie, a complete item by the separator. A child is allowed only while
    it has more leaves than the list has used below it, so no list repeats an item or reaches a dead end. After K items
    nothing is allowed. `longest_run` is that of at least 1 % of the leaves.

    For batches whose rows exclude leaves (`excluding`), an excluded leaf counts as used from the start: `available`
    holds, for every trie node, the leaves below it that a row may still recommend. A round then reads one number per
    child, however many leaves are excluded.

    Args:
        trie: the catalog's trie, on the decoding device.
        vocabulary: the target's tokens.
        list_length: K, items in a list.

    Attributes:
        available: leaves below each trie node that a row does not exclude, int32 `[B, n_nodes + 1]`; None where nothing
            is excluded.

    Raises:
        InputError: K is less than 1 or more than the catalog's leaves.
    """

    def __init__(self, trie: CatalogTrie, vocabulary: SemanticIDVocabulary, list_length: int) -> None:
        if not 1 <= list_length <= trie.n_leaves:
            raise InputError(
                f"lists of {list_length} distinct items: the catalog has {trie.n_leaves} distinct semantic IDs"
            )
        self.trie = trie
        self.vocabulary = vocabulary
        self.list_length = list_length
        self.available: Tensor | None = None
        # Every pass pays for the room, so rare long runs get none.
        runs = trie.forced_run_lengths() + int(vocabulary.separator)
        common = [int((runs >= length).sum()) >= _COMMON * trie.n_leaves for length in range(vocabulary.item_length)]
        self.longest_run = max(length for length, is_common in enumerate(common) if is_common)

    def excluding(self, batch: int) -> "CatalogConstraint":
        """The same constraint for batches of one size whose rows exclude leaves; see `exclude`."""
        excluding = copy(self)
        excluding.available = (self.trie.high - self.trie.low).int().repeat(batch, 1)
        return excluding

    def exclude(self, leaves: Tensor) -> None:
        """Begin a batch whose rows exclude these leaves; in place, so that captured rounds see it.

        Args:
            leaves: int64 `[B, E]` in any order, -1 for none; every row must leave at least K (see `excluded_leaves`).
        """
        assert self.available is not None
        trie, n_leaves = self.trie, self.trie.n_leaves
        excluded = torch.zeros(len(leaves), n_leaves + 1, dtype=torch.int32, device=leaves.device)
        excluded.scatter_(1, leaves.where(leaves >= 0, n_leaves), 1)  # -1 is written to an extra column
        before = functional.pad(excluded[:, :n_leaves].cumsum(1, dtype=torch.int32), (1, 0))  # [B, n_leaves + 1]
        self.available.copy_(trie.high - trie.low - (before[:, trie.high] - before[:, trie.low]))

    def leaves_below(self, nodes: Tensor) -> Tensor:
        """Leaves below trie nodes, int64 `[*]`, without excluded ones; `[B, *]` if rows exclude leaves."""
        if self.available is None:
            return self.trie.high[nodes] - self.trie.low[nodes]
        return self.available.gather(1, nodes.flatten(1)).view(nodes.shape)

    def initial(self, batch: int, device: torch.device) -> CatalogState:
        """States `[batch]` of empty lists."""
        zeros = torch.zeros(batch, dtype=torch.long, device=device)
        used = torch.full((batch, self.list_length), self.trie.n_leaves, device=device)
        return CatalogState(slot=zeros + self.vocabulary.other_slot, node=zeros, used=used, count=zeros)

    def continuations(self, state: CatalogState) -> Continuations:
        """The trie's children, and the separator if the vocabulary has one."""
        tokens, nodes, present = self.trie.children(state.node)  # [*, C]
        low, high = self.trie.low[nodes], self.trie.high[nodes]
        used = state.used[..., None, :]
        used_below = ((used >= low[..., None]) & (used < high[..., None])).sum(-1)  # [*, C]
        unfinished = state.count < self.list_length
        free = present & (self.leaves_below(nodes) > used_below) & unfinished[..., None]
        if self.vocabulary.separator:
            due = self.trie.is_leaf(state.node) & unfinished
            tokens = torch.cat([tokens, torch.full_like(tokens[..., :1], self.vocabulary.separator_token)], -1)
            free = torch.cat([free, due[..., None]], -1)
        return Continuations(tokens, free)

    def allowed(self, state: CatalogState) -> Tensor:
        """Whether each token is allowed, bool `[*, V]`."""
        return self.continuations(state).mask(self.vocabulary.size)

    def forced(self, state: CatalogState) -> Tensor:
        """The only token that the trie allows, int64 `[*]`, or -1.

        A token that is forced only because the list has used up its siblings is not found.
        """
        return torch.where(state.count < self.list_length, self.trie.only_token[state.node], -1)

    def advance(self, state: CatalogState, token: Tensor) -> CatalogState:
        """The states after one more token each; a token that is not allowed leads to the trie's sink."""
        node = self.trie.child(state.node, token)
        completed = self.trie.is_leaf(node) & (state.count < self.list_length)
        is_next = torch.arange(self.list_length, device=node.device) == state.count[..., None]
        used = torch.where(is_next & completed[..., None], self.trie.leaf(node)[..., None], state.used)
        if self.vocabulary.separator:
            to_root = self.trie.is_leaf(state.node) & (token == self.vocabulary.separator_token)
        else:
            to_root = completed
        return CatalogState(
            slot=self.vocabulary.next_slot(state.slot, token),
            node=torch.where(to_root, 0, node),
            used=used,
            count=state.count + completed,
        )
