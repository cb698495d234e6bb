"""What a list may continue with: the catalog constraint as a state on the device."""

from dataclasses import dataclass, fields, replace
from typing import Protocol, Self, TypeGuard, TypeVar

import torch
from torch import Tensor

from padrec.catalog import CatalogTrie, InputError, SemanticIDVocabulary


@dataclass(frozen=True)
class ListState:
    """Where generated lists stand; the leading dimensions `[*]` are rows, or rows × tree nodes.

    Attributes:
        slot: slot of the last token, int64 `[*]`.
    """

    slot: Tensor

    def gather(self, index: Tensor) -> Self:
        """States `[B, M]` picked by `index`, int64 `[B, R]`: states `[B, R]`."""
        picked = {}
        for field in fields(self):
            value: Tensor = getattr(self, field.name)
            at = index.view(*index.shape, *[1] * (value.ndim - 2)).expand(*index.shape, *value.shape[2:])
            picked[field.name] = value.gather(1, at)
        return replace(self, **picked)

    def clone(self) -> Self:
        """States of the same values in memory of their own."""
        return replace(self, **{field.name: getattr(self, field.name).clone() for field in fields(self)})

    def copy_(self, other: Self) -> None:
        """Take over the values of states of the same shape."""
        for field in fields(self):
            getattr(self, field.name).copy_(getattr(other, field.name))

    def unsqueeze(self) -> Self:
        """States `[B]` as states `[B, 1]`."""
        return replace(self, **{field.name: getattr(self, field.name)[:, None] for field in fields(self)})

    def squeeze(self) -> Self:
        """States `[B, 1]` as states `[B]`."""
        return replace(self, **{field.name: getattr(self, field.name)[:, 0] for field in fields(self)})


S = TypeVar("S", bound=ListState)


def concatenate(states: list[S]) -> S:
    """States `[B, M_1]`, `[B, M_2]`, … as states `[B, M_1 + M_2 + …]`."""
    joined = {field.name: torch.cat([getattr(state, field.name) for state in states], 1) for field in fields(states[0])}
    return replace(states[0], **joined)


@dataclass(frozen=True)
class Continuations:
    """All tokens that may follow, among others that may not; far fewer than the vocabulary has.

    Attributes:
        tokens: int64 `[*, C]`; those that are free differ from one another.
        free: whether each may follow, bool `[*, C]`.
    """

    tokens: Tensor
    free: Tensor

    def mask(self, vocabulary_size: int) -> Tensor:
        """Whether each token of the vocabulary may follow, bool `[*, V]`."""
        shape = (*self.tokens.shape[:-1], vocabulary_size + 1)
        counts = torch.zeros(shape, dtype=torch.int32, device=self.tokens.device)
        # What is not free is written to one column too many, which is cut off again. Not with truth values, for which
        # the compiler has no kernel of its own.
        places = torch.where(self.free, self.tokens, vocabulary_size)
        return counts.scatter(-1, places, self.free.int())[..., :vocabulary_size] > 0


class Constraint(Protocol[S]):
    """Decides which tokens may follow; one object serves every decoder and, in trees, every node."""

    @property
    def longest_run(self) -> int:
        """Forced tokens that a round has room for behind a node, fewer than an item has; 0 where none is ever forced.

        What a longer run has besides takes another round.
        """
        ...

    def initial(self, batch: int, device: torch.device) -> S:
        """States `[batch]` of lists that have not begun."""
        ...

    def continuations(self, state: S) -> Continuations | None:
        """Tokens that may follow, `[*]`; None where all may."""
        ...

    def allowed(self, state: S) -> Tensor | None:
        """The same for every token of the vocabulary, bool `[*, V]`; None where all may follow."""
        ...

    def forced(self, state: S) -> Tensor:
        """The token that must follow, int64 `[*]`; -1 where several may or none.

        A constraint need not find every forced token, but no other token may follow than the one it names.
        """
        ...

    def advance(self, state: S, token: Tensor) -> S:
        """States after one more token each (int64, the states' shape)."""
        ...


class FreeDecoding:
    """No constraint: every token may follow, only slots are tracked.

    Args:
        vocabulary: the target's tokens.
    """

    longest_run = 0

    def __init__(self, vocabulary: SemanticIDVocabulary) -> None:
        self.vocabulary = vocabulary

    def initial(self, batch: int, device: torch.device) -> ListState:
        """States `[batch]` of lists that have not begun."""
        return ListState(slot=torch.full((batch,), self.vocabulary.other_slot, device=device))

    def continuations(self, state: ListState) -> Continuations | None:
        """Always None: every token may follow."""
        return None

    def allowed(self, state: ListState) -> Tensor | None:
        """Always None: every token may follow."""
        return None

    def forced(self, state: ListState) -> Tensor:
        """Always -1: no token must follow."""
        return torch.full_like(state.slot, -1)

    def advance(self, state: ListState, token: Tensor) -> ListState:
        """States after one more token each."""
        return ListState(slot=self.vocabulary.next_slot(state.slot, token))


@dataclass(frozen=True)
class CatalogState(ListState):
    """A list's place in the catalog.

    Attributes:
        node: trie node of the item under way, int64 `[*]`; a leaf while its separator is due.
        used: leaves already in the list, int64 `[*, K]`, `n_leaves` where free.
        count: items completed, int64 `[*]`.
    """

    node: Tensor
    used: Tensor
    count: Tensor


# Of all leaves: rounds have room for forced runs as long as so many end with.
_COMMON = 0.01


class CatalogConstraint:
    """Lists of K distinct items that exist.

    *Valid*: only the trie's children may follow a node, only the separator a whole item. *Distinct*: a child stays
    allowed while it has more leaves than the list has already used below it, so no list repeats an item or runs into
    a dead end. After K items nothing is allowed.

    Args:
        trie: the catalog's trie, on the decoding device.
        vocabulary: the target's tokens.
        list_length: K, items in a list.

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
        runs = trie.forced_run_lengths() + int(vocabulary.separator)
        # Room that hardly any item needs would be paid for in every pass.
        common = [int((runs >= length).sum()) >= _COMMON * trie.n_leaves for length in range(vocabulary.item_length)]
        self._longest_run = max(length for length, is_common in enumerate(common) if is_common)

    @property
    def longest_run(self) -> int:
        """The longest run of forced tokens that at least one leaf in a hundred ends with."""
        return self._longest_run

    def initial(self, batch: int, device: torch.device) -> CatalogState:
        """States `[batch]` of lists that have not begun."""
        zeros = torch.zeros(batch, dtype=torch.long, device=device)
        used = torch.full((batch, self.list_length), self.trie.n_leaves, device=device)
        return CatalogState(slot=zeros + self.vocabulary.other_slot, node=zeros, used=used, count=zeros)

    def continuations(self, state: CatalogState) -> Continuations:
        """Tokens that may follow: the trie's children, and the separator where there is one."""
        tokens, nodes, present = self.trie.children(state.node)  # [*, C]
        low, high = self.trie.low[nodes], self.trie.high[nodes]
        used = state.used[..., None, :]
        used_below = ((used >= low[..., None]) & (used < high[..., None])).sum(-1)  # [*, C]
        unfinished = state.count < self.list_length
        free = present & (high - low > used_below) & unfinished[..., None]
        if self.vocabulary.separator:
            due = self.trie.is_leaf(state.node) & unfinished
            tokens = torch.cat([tokens, torch.full_like(tokens[..., :1], self.vocabulary.separator_token)], -1)
            free = torch.cat([free, due[..., None]], -1)
        return Continuations(tokens, free)

    def allowed(self, state: CatalogState) -> Tensor:
        """Tokens that may follow, bool `[*, V]`."""
        return self.continuations(state).mask(self.vocabulary.size)

    def forced(self, state: CatalogState) -> Tensor:
        """The only token in the trie behind each state, int64 `[*]`, or -1.

        A token that is forced only because the list has used up its siblings is not found.
        """
        return torch.where(state.count < self.list_length, self.trie.only_token[state.node], -1)

    def advance(self, state: CatalogState, token: Tensor) -> CatalogState:
        """States after one more token each; a token that was not allowed leads to the trie's sink."""
        node = self.trie.child(state.node, token)
        completed = self.trie.is_leaf(node) & (state.count < self.list_length)
        place = torch.arange(self.list_length, device=node.device) == state.count[..., None]
        used = torch.where(place & completed[..., None], self.trie.leaf(node)[..., None], state.used)
        if self.vocabulary.separator:
            back = self.trie.is_leaf(state.node) & (token == self.vocabulary.separator_token)
        else:
            back = completed
        return CatalogState(
            slot=self.vocabulary.next_slot(state.slot, token),
            node=torch.where(back, 0, node),
            used=used,
            count=state.count + completed,
        )


C = TypeVar("C", CatalogConstraint, FreeDecoding)


def is_plain(constraint: object, kind: type[C], *methods: str) -> TypeGuard[C]:
    """Whether a constraint is of this kind and overrides none of these methods: kernels may then stand in for them."""
    return isinstance(constraint, kind) and all(
        getattr(type(constraint), method) is getattr(kind, method) for method in methods
    )
