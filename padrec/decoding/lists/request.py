"""Requests, and what they return."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, Self, TypeVar

import torch
from torch import Tensor

from padrec.catalog import Catalog, CatalogTrie, InputError, PositiveInt, SemanticIDVocabulary, check_arguments
from padrec.data.item_sequences import ItemSequences
from padrec.decoding.lists.catalog_constraint import CatalogConstraint
from padrec.decoding.lists.constraint import Constraint, FreeDecoding, Unconstrained
from padrec.decoding.lists.list_state import ListState
from padrec.decoding.lists.not_finite_error import check_finite
from padrec.decoding.lists.sampling import Sampling

R_co = TypeVar("R_co", covariant=True)


class Request(Protocol[R_co]):
    """What to generate for every prompt of a batch. Compared by identity: a session serves one request."""

    @property
    def constraint(self) -> Constraint[ListState]:
        """Which tokens are allowed."""

    @property
    def sampling(self) -> Sampling:
        """The sampling rule."""

    @property
    def n_tokens(self) -> int:
        """T, the most tokens to generate."""

    @property
    def vocabulary_size(self) -> int:
        """V, tokens of the target."""

    @property
    def n_slot_states(self) -> int:
        """Slots by which acceptance is counted; 1 if tokens have none."""

    @property
    def pad_token(self) -> int:
        """Fills rows that end early."""

    @property
    def stop_tokens(self) -> tuple[int, ...]:
        """Tokens that end a row, as its last token."""

    def slots(self, tokens: Tensor) -> Tensor:
        """The slots of generated tokens, both int64 `[B, T]`."""

    def excluding(self, batch: int) -> Self:
        """The same request for batches of one size whose prompts exclude items; see `Prompts.excluded`.

        Raises:
            InputError: it does not ask for lists of a catalog.
        """

    def result(self, tokens: Tensor, log_probs: Tensor) -> R_co:
        """Make the result from the generated tokens.

        Args:
            tokens: int64 `[B, T]` on the CPU, padded after the end.
            log_probs: the tokens' under the target's constrained distribution at temperature 1, float32 `[B, T]` on the
                CPU.

        Raises:
            NotFiniteError: a log-probability is NaN.
        """


@dataclass(frozen=True)
class Recommendations:
    """One list for each row, on the CPU.

    Attributes:
        leaves: the catalog's leaves in list order, int64 `[B, K]`; -1 if the tokens are not an item.
        tokens: generated tokens, int64 `[B, T]`, padded after the end.
        log_probs: the tokens' under the target's constrained distribution at temperature 1, `[B, T]`. After a beam
            search: what it adds up (see `BeamDecoder`), 0 for separators.
    """

    leaves: Tensor
    tokens: Tensor
    log_probs: Tensor

    @classmethod
    def from_tokens(
        cls, tokens: Tensor, log_probs: Tensor, catalog: Catalog, vocabulary: SemanticIDVocabulary, list_length: int
    ) -> "Recommendations":
        """Look up the generated tokens in the catalog; NaN among the log-probabilities is a `NotFiniteError`."""
        check_finite(log_probs)
        codes = vocabulary.parse_lists(tokens, list_length)
        return cls(leaves=catalog.leaf_of_codes(codes), tokens=tokens, log_probs=log_probs)

    @classmethod
    def from_leaves(
        cls, leaves: Tensor, log_probs: Tensor, catalog: Catalog, vocabulary: SemanticIDVocabulary
    ) -> "Recommendations":
        """Write leaves, int64 `[B, K]`, as tokens; `log_probs` are those of their codes, `[B, K, L]`; all on the CPU.

        Raises:
            NotFiniteError: a log-probability is NaN.
        """
        check_finite(log_probs)
        length = vocabulary.list_tokens(leaves.shape[1])
        tokens = vocabulary.encode(catalog.leaf_codes[leaves]).flatten(1)[:, :length]
        padded = torch.nn.functional.pad(log_probs, (0, vocabulary.item_length - vocabulary.n_slots))
        return cls(leaves, tokens, padded.flatten(1)[:, :length])

    @classmethod
    def joined(cls, parts: "Sequence[Recommendations]") -> "Recommendations":
        """Join the lists of several batches of one request."""
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in ("leaves", "tokens", "log_probs")))


@dataclass(frozen=True, eq=False)
class ListRequest:
    """Asks for a list of K items for every prompt; see `Request`.

    Attributes:
        catalog: the items.
        vocabulary: the target's tokens.
        list_length: K, items in a list.
        constraint: which tokens are allowed.
        sampling: the sampling rule.
        training: users' training items in time order, for drafts that learn from them; None where there are none.
    """

    catalog: Catalog
    vocabulary: SemanticIDVocabulary
    list_length: PositiveInt
    constraint: Constraint[ListState]
    sampling: Sampling = field(default_factory=Sampling)
    training: ItemSequences | None = None

    def __post_init__(self) -> None:
        check_arguments(ListRequest, vars(self))

    @classmethod
    def build(
        cls,
        catalog: Catalog,
        vocabulary: SemanticIDVocabulary,
        list_length: int,
        *,
        constrained: bool = True,
        sampling: Sampling | None = None,
        training: ItemSequences | None = None,
        device: torch.device | str = "cpu",
    ) -> "ListRequest":
        """Make a request with its constraint on a device.

        Raises:
            InputError: K is below 1, or constrained and above the catalog's leaves.
        """
        constraint: Constraint[ListState]
        if constrained:
            trie = CatalogTrie(catalog, vocabulary).to(device)
            constraint = CatalogConstraint(trie, vocabulary, list_length)  # type: ignore[assignment]
        else:
            constraint = FreeDecoding(vocabulary)
        return cls(catalog, vocabulary, list_length, constraint, sampling or Sampling(), training)

    @property
    def n_tokens(self) -> int:
        """T, tokens in a list."""
        return self.vocabulary.list_tokens(self.list_length)

    @property
    def vocabulary_size(self) -> int:
        """V, tokens of the target."""
        return self.vocabulary.size

    @property
    def n_slot_states(self) -> int:
        """L + 2: an item's slots, the separator's, and that of all other tokens."""
        return self.vocabulary.n_slot_states

    @property
    def pad_token(self) -> int:
        """Fills lists that end early."""
        return self.vocabulary.pad_token

    @property
    def stop_tokens(self) -> tuple[int, ...]:
        """`<eos>`, which may end an unconstrained list."""
        if not isinstance(self.constraint, CatalogConstraint):
            return (self.vocabulary.eos_token,)
        return ()

    def slots(self, tokens: Tensor) -> Tensor:
        """See `Request.slots`."""
        slots = [torch.full_like(tokens[:, 0], self.vocabulary.other_slot)]
        for token in tokens.unbind(1):
            slots.append(self.vocabulary.next_slot(slots[-1], token))
        return torch.stack(slots[1:], 1)

    def excluding(self, batch: int) -> "ListRequest":
        """See `Request.excluding`."""
        if not isinstance(self.constraint, CatalogConstraint):
            raise InputError("items to exclude without a constraint: expected constraint: catalog, which excludes them")
        return replace(self, constraint=self.constraint.excluding(batch))

    def result(self, tokens: Tensor, log_probs: Tensor) -> Recommendations:
        """Look up the items; see `Request.result`."""
        return Recommendations.from_tokens(tokens, log_probs, self.catalog, self.vocabulary, self.list_length)


@dataclass(frozen=True)
class GeneratedText:
    """One text for each row, on the CPU."""

    tokens: Tensor  # int64 [B, T], padded after the end
    log_probs: Tensor  # under the target's distribution at temperature 1, float32 [B, T]
    lengths: Tensor  # tokens of each text, including the stop token, int64 [B]


@dataclass(frozen=True, eq=False)
class TextRequest:
    """Asks for a text for every prompt, up to a stop token or `n_tokens` tokens; see `Request`.

    Attributes:
        vocabulary_size: V, tokens of the target.
        n_tokens: T, the most tokens to generate, at least 1.
        stop_tokens: tokens that end a text.
        pad_token: fills texts that end early.
        sampling: the sampling rule.

    Raises:
        InputError: `n_tokens` is below 1, or a stop or padding token is outside the vocabulary.
    """

    vocabulary_size: int
    n_tokens: int
    stop_tokens: tuple[int, ...] = ()
    pad_token: int = 0
    sampling: Sampling = field(default_factory=Sampling)
    constraint: Unconstrained = field(default_factory=Unconstrained)

    n_slot_states = 1

    def __post_init__(self) -> None:
        outside = [token for token in (*self.stop_tokens, self.pad_token) if not 0 <= token < self.vocabulary_size]
        if self.n_tokens < 1 or outside:
            raise InputError(
                f"n_tokens {self.n_tokens}, stop and padding tokens {outside} outside the vocabulary: expected at "
                f"least 1 token, and tokens of 0 … {self.vocabulary_size - 1}"
            )

    def slots(self, tokens: Tensor) -> Tensor:
        """All 0; see `Request.slots`."""
        return torch.zeros_like(tokens)

    def excluding(self, batch: int) -> "TextRequest":
        """Refuse to exclude items; see `Request.excluding`."""
        raise InputError("items to exclude from a text: expected a request for lists of a catalog")

    def result(self, tokens: Tensor, log_probs: Tensor) -> GeneratedText:
        """Count the tokens of each text; see `Request.result`."""
        check_finite(log_probs)
        return GeneratedText(tokens, log_probs, text_lengths(tokens, self.stop_tokens))


def text_lengths(tokens: Tensor, stop_tokens: Sequence[int]) -> Tensor:
    """Tokens of each row `[B, T]` up to its first stop token, which counts, int64 `[B]`; T without one."""
    # Padding does not mark the end: without a constraint the target may write it too.
    stops = torch.tensor(stop_tokens, dtype=torch.long, device=tokens.device)
    unstopped = torch.isin(tokens, stops).cumsum(1) == 0
    return (unstopped.sum(1) + 1).clamp(max=tokens.shape[1])
