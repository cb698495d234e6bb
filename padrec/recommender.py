"""Histories in, items out: a saved target with its catalog, and a draft that makes it faster."""

import math
from collections.abc import Collection, Sequence, Set
from copy import copy
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations_with_replacement
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Literal, NamedTuple

import numpy as np
import torch
from huggingface_hub import HfApi
from torch.nn import functional

from padrec.catalog import Catalog, CatalogTrie, InputError
from padrec.catalog.item_names import ItemNames
from padrec.decoding import (
    AutoregressiveDecoder,
    BatchwiseDecoder,
    BeamDecoder,
    CatalogConstraint,
    Decoder,
    DecodingSession,
    DecodingTrace,
    LeafExclusion,
    ListRequest,
    Prompts,
    Recommendations,
    Sampling,
    TransformersRunner,
)
from padrec.decoding.device.captured_graph import captures_graphs
from padrec.decoding.layers.prompt_shape import PromptShape
from padrec.recommender_card import recommender_card
from padrec.recommender_folder import DecoderSettings, RecommenderFolder, pretrained_folder
from padrec.targets import SavedTarget, fingerprint, to_precision

Search = Literal["list", "beam"]
Exclude = Literal["history"] | Set[str] | Sequence[Collection[str]]

_MOST_SESSIONS = 8
_MOST_NAMES = 1 << 17  # of leaves and items, kept as they are answered
_SAMPLING = Sampling()  # whose keys do not depend on its settings
# On a GPU, where every shape is recorded: users are repeated to a power of two, from here on to a multiple of this.
_ROWS_STEP = 8
# Their excluded leaves are padded to this many, and the prompts of several users to the longest that there may be if it
# has at most this many tokens.
_LEAVES, _WIDEST = 64, 256
# Histories of at most this many lengths and items are recorded beforehand.
_LENGTHS, _LONGEST_WARM_UP = 20, 200


class RecommendedItem(NamedTuple):
    """An item of a list.

    Attributes:
        key: the user's own item key.
        title: what the catalog says about the item; None where it says nothing.
        log_prob: natural logarithm of its probability: in a list after the items before it, in a beam on its own.
        ties: keys of other items with the same semantic ID, which the target cannot tell from this one.
    """

    key: str
    title: str | None
    log_prob: float
    ties: tuple[str, ...] = ()


@dataclass(frozen=True)
class User:
    """Somebody to recommend to; `Recommender.users` makes them."""

    history: Sequence[int]  # rows of the catalog, oldest first
    excluded: Set[int]  # rows of the catalog that are not recommended
    key: int  # what makes a sampled list random, see `Prompts.keys`


class Recommender:
    """Recommends with a saved target; `load` and `from_pretrained` read it.

    Args:
        target: the target with its catalog and prompt format.
        decoder: writes the lists; None is `AutoregressiveDecoder`.
        device: where to compute; None is the GPU where there is one, else the CPU.
        dtype: precision of the weights; None is bfloat16 on a GPU and float32 on the CPU.

    Attributes:
        catalog: the items.
        batch_size: users decoded together at most; to be set before the first request.
        device: where it computes.
        runner: the target.
        vocabulary: its tokens.
        decoders: what answers each kind of search.

    Raises:
        InputError: the target was saved without its catalog or prompt format.
    """

    def __init__(
        self,
        target: SavedTarget,
        decoder: Decoder | None = None,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if target.catalog is None or target.prompt_format is None:
            missing = "catalog" if target.catalog is None else "prompt format"
            raise InputError(
                f"a target without {missing}: expected one that `padrec fit` or `save_pretrained` saved with both"
            )
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        known_as = fingerprint(target.model)  # before the change of precision, as drafts know it
        model = target.model.eval()
        torch.nn.Module.to(model, self.device)  # in place; transformers wraps its own `to` without types
        to_precision(model, dtype or (torch.bfloat16 if self.device.type == "cuda" else torch.float32))
        self.runner = TransformersRunner(model, known_as)
        self.vocabulary, self._format = target.vocabulary, target.prompt_format
        self.decoders: dict[Search, Decoder] = {"list": decoder or AutoregressiveDecoder(), "beam": BeamDecoder()}
        self.batch_size = 32
        self._folder: RecommenderFolder | None = None
        self._use(target.catalog)

    @classmethod
    def load(
        cls,
        target: str | Path,
        draft: str | Path | None = None,
        decoder: DecoderSettings | None = None,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> "Recommender":
        """Read a target and a draft for it.

        Args:
            target: folder of `TargetRecommender.save_pretrained`, or a checkpoint of `padrec fit`.
            draft: folder or checkpoint of a draft of this target; None writes the same lists without, slower.
            decoder: how the draft is used; None is `DecoderSettings()`.
            device: see `Recommender`.
            dtype: see `Recommender`.

        Raises:
            InputError: one of them is missing, malformed or of another kind, or the target lacks its catalog.
        """
        folder = RecommenderFolder(Path(target), None if draft is None else Path(draft), decoder or DecoderSettings())
        return cls._of(folder, device, dtype)

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        revision: str | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> "Recommender":
        """Read a folder that `save_pretrained` or `padrec export` wrote.

        Args:
            name: the folder, or a repository of the Hugging Face hub.
            revision: branch, tag or commit of the repository.
            device: see `Recommender`.
            dtype: see `Recommender`.

        Raises:
            InputError: there is neither, a part is missing or damaged, or the folder has another format version.
        """
        return cls._of(RecommenderFolder.open(pretrained_folder(name, revision)), device, dtype)

    @classmethod
    def _of(
        cls, folder: RecommenderFolder, device: torch.device | str | None, dtype: torch.dtype | None
    ) -> "Recommender":
        recommender = cls(folder.read_target(), folder.decoder.decoder(folder.draft), device=device, dtype=dtype)
        recommender._folder = folder
        return recommender

    def save_pretrained(self, folder: str | Path, report: str | Path | None = None, arm: str = "padrec") -> None:
        """Write target, draft, catalog, decoder settings and model card to a folder, as they were read.

        Args:
            folder: where to write.
            report: `report.json` of `padrec test`, which fills in the card.
            arm: the report's arm that this recommender is.

        Raises:
            InputError: the recommender was not read from files or they are gone, the folder holds something already, or
                the report lacks the arm.
        """
        if self._folder is None:
            raise InputError("a recommender made in memory: expected one of `load` or `from_pretrained` to save")
        evaluated = None if report is None else Path(report)
        card = recommender_card(Path(folder).name, self.catalog, self._folder.draft is not None, evaluated, arm)
        self._folder.write(Path(folder), card)

    def push_to_hub(
        self, repository: str, *, private: bool = False, report: str | Path | None = None, arm: str = "padrec"
    ) -> None:
        """Upload what `save_pretrained` writes to a repository of the Hugging Face hub, made where there is none.

        Args:
            repository: its name, `owner/name`.
            private: whether a new repository is private.
            report: see `save_pretrained`.
            arm: see `save_pretrained`.
        """
        with TemporaryDirectory() as place:
            folder = Path(place) / repository.rpartition("/")[2]
            self.save_pretrained(folder, report, arm)
            hub = HfApi()
            hub.create_repo(repository, private=private, exist_ok=True)
            hub.upload_folder(repo_id=repository, folder_path=folder)

    def with_catalog(self, catalog: Catalog) -> "Recommender":
        """The same recommender for another catalog, which shares the weights; nothing is out of stock.

        Raises:
            InputError: a code that the target has no token for, or items whose semantic IDs have changed.
        """
        catalog.check_ids(self.catalog, "the recommender")
        other = copy(self)
        other._use(catalog)
        return other

    def undrafted(self) -> "Recommender":
        """The same recommender without its draft, which writes the same lists, slower."""
        other = copy(self)
        other.decoders = {**self.decoders, "list": AutoregressiveDecoder()}
        other._forget_sessions()
        return other

    @property
    def out_of_stock(self) -> set[str]:
        """Keys of the items that nobody is recommended."""
        return {self.catalog.keys[row] for row in self._out_of_stock}

    def set_out_of_stock(self, items: Collection[str]) -> None:
        """Recommend these items, by key or title, to nobody; they may be in histories. Replaces those set before.

        Raises:
            InputError: an unknown item; nothing is changed.
        """
        self._out_of_stock = frozenset(self._names.index(name) for name in items)
        self._exclusion = LeafExclusion(self.catalog, self._out_of_stock)
        self._in_stock, self._shown = lru_cache(_MOST_NAMES)(self._left_of), lru_cache(_MOST_NAMES)(self._names_of)

    def _use(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self._encoder = self._format.encoder(self.vocabulary, catalog)
        self._longest = self._encoder.longest(self._format.max_history, 0, to_list=True)  # prompt, in tokens
        self._names = ItemNames(catalog)
        self._trie = CatalogTrie(catalog, self.vocabulary).to(self.device)
        self._forget_sessions()
        self.set_out_of_stock(())

    def _forget_sessions(self) -> None:
        # Kept, since a session holds the cache and the captured rounds; the least recently used one is given up.
        self._session = lru_cache(_MOST_SESSIONS)(self._new_session)

    def recommend(
        self,
        histories: Sequence[Sequence[str]],
        k: int = 10,
        *,
        exclude: Exclude | None = None,
        search: Search = "list",
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[list[RecommendedItem]]:
        """Recommend K items to each user.

        Args:
            histories: each user's items, oldest first, by their keys or by titles that only one item has.
            k: K, items to recommend; no two of a list have the same semantic ID.
            exclude: items not to recommend, by key or title: `"history"` for those of each user's own history, a set
                for all users, or a list with a collection for each user. A semantic ID is excluded where all its items
                are; otherwise its other items are recommended.
            search: `list` writes the items one after the other, each after those before it; `beam` ranks the items
                that are most probable to come next, see `BeamDecoder`.
            temperature: of sampled lists; 0 is greedy.
            seed: of sampled lists.

        Returns:
            For each history K items, best first.

        Raises:
            InputError: no or an empty history, an unknown item, too large a K, fewer than K semantic IDs left, or a
                beam with a temperature.
        """
        lists, _ = self.decode(self.users(histories, exclude, seed), k, search, temperature)
        return lists

    def users(
        self, histories: Sequence[Sequence[str]], exclude: Exclude | None = None, seed: int = 0
    ) -> Sequence[User]:
        """Users of one call of `recommend`; see there."""
        rows = [self._names.rows(history) for history in histories]
        return [User(*user) for user in zip(rows, self._excluded(rows, exclude), _keys(len(rows), seed), strict=True)]

    def decode(
        self, users: Sequence[User], k: int, search: Search = "list", temperature: float = 0.0
    ) -> tuple[list[list[RecommendedItem]], DecodingTrace]:
        """Recommend to users of any calls, together: each gets the list of its own call. See `recommend`.

        Returns:
            For each user K items, best first; and what they cost (on a GPU with copies of users that fill the batch).
        """
        session = self._session(k, search, temperature)
        lists, trace = session.decode(self.prompts(self._in_known_shape(users), k), torch.Generator())
        rows = zip(lists.leaves.tolist(), self._log_probs(lists, k), users, strict=False)
        return [self._items(leaves, log_probs, user.excluded) for leaves, log_probs, user in rows], trace

    def prompts(self, users: Sequence[User], k: int) -> Prompts:
        """The users' prompts for lists of K items, on the host; see `recommend`."""
        encoded = self._format.encoded([user.history for user in users], self._encoder)
        tokens, slots = encoded.tokens, encoded.slots
        if captures_graphs(self.device) and len(users) > 1:
            spare = self._longest - tokens.shape[1] if self._longest <= _WIDEST else 0
            tokens, slots = (functional.pad(table, (0, spare)) for table in (tokens, slots))
        leaves, excluded = None, [user.excluded for user in users]
        if self._out_of_stock or any(excluded) or captures_graphs(self.device):
            # Few numbers of leaves are recorded.
            leaves = self._exclusion.leaves(excluded, k, _LEAVES if captures_graphs(self.device) else 0)
        keys = torch.from_numpy(np.array([user.key for user in users]))
        return Prompts(tokens, slots, encoded.lengths, excluded=leaves, keys=keys)

    def _in_known_shape(self, users: Sequence[User]) -> Sequence[User]:
        """On a GPU with copies of a user, so that few batch sizes are recorded."""
        rest = len(users) % self.batch_size
        if rest == 0 or not captures_graphs(self.device):
            return users
        return [*users, *[users[0]] * (self._known_size(rest) - rest)]

    def _known_size(self, users: int) -> int:
        """The size of the smallest batch on a GPU that has room for these users."""
        size = 1 << (users - 1).bit_length() if users < _ROWS_STEP else math.ceil(users / _ROWS_STEP) * _ROWS_STEP
        return min(size, self.batch_size)

    def warm_up(self, k: int, search: Search = "list", temperature: float = 0.0) -> None:
        """Open the session for requests of a kind; on a GPU record its passes for batches and prompts of all sizes.

        The kind is that of `recommend`.
        """
        if not captures_graphs(self.device):
            self.decode(self.users([self.catalog.keys[:1]]), k, search, temperature)
            return
        longest = min(self._format.max_history, _LONGEST_WARM_UP)
        lengths = range(longest, 0, -max(1, longest // _LENGTHS))
        chance = Random(0)  # users differ, since decoders are chosen by how long such batches take
        seen: set[PromptShape] = set()
        for size in sorted({self._known_size(users) for users in range(1, self.batch_size + 1)}, reverse=True):
            for first, others in combinations_with_replacement(lengths, 2):
                if size > 1 or first == others:
                    histories = [chance.choices(self.catalog.keys, k=n) for n in (first, *[others] * (size - 1))]
                    users = self.users(histories)
                    if (shape := PromptShape.of(self.prompts(users, k), self.device)) not in seen:
                        seen.add(shape)
                        self.decode(users, k, search, temperature)

    def _excluded(self, histories: Sequence[Sequence[int]], exclude: Exclude | None) -> list[set[int]]:
        """The item indices that each row excludes."""
        if exclude is None:
            return [set() for _ in histories]
        if exclude == "history":
            return [set(history) for history in histories]
        if isinstance(exclude, str):
            raise InputError(f"exclude {exclude!r}: expected 'history', or items for all users or each of them")
        if isinstance(exclude, Set):
            for_all = {self._names.index(name) for name in exclude}
            return [for_all for _ in histories]
        if len(exclude) != len(histories):
            found = f"{len(exclude)} collections of items"
            raise InputError(f"exclude: {found}, expected one for each of {len(histories)} users, or a set for all")
        return [{self._names.index(name) for name in items} for items in exclude]

    def _new_session(self, k: int, search: Search, temperature: float) -> DecodingSession[Recommendations]:
        if search not in self.decoders:
            raise InputError(f"search {search!r}: expected 'list' or 'beam'")
        return BatchwiseDecoder(self.decoders[search], self.batch_size).bind(self.runner, self.request(k, temperature))

    def request(self, k: int, temperature: float) -> ListRequest:
        """What decoders are asked for; see `recommend`."""
        constraint = CatalogConstraint(self._trie, self.vocabulary, k)
        return ListRequest(self.catalog, self.vocabulary, k, constraint, Sampling(temperature))  # type: ignore[arg-type]

    def _log_probs(self, lists: Recommendations, k: int) -> list[list[float]]:
        """Of each item the sum over its codes; its separator is certain."""
        starts = np.arange(k) * self.vocabulary.item_length
        sums: list[list[float]] = np.add.reduceat(lists.log_probs.numpy(), starts, axis=1).tolist()
        return sums

    def _items(self, leaves: list[int], log_probs: list[float], excluded: Set[int]) -> list[RecommendedItem]:
        items = []
        for leaf, log_prob in zip(leaves, log_probs, strict=True):
            left = self._in_stock(leaf)
            if len(left) > 1:  # else its only item is not excluded, or the leaf would be
                left = tuple(item for item in left if item not in excluded)
            key, title, ties = self._shown(left)
            items.append(RecommendedItem(key, title, log_prob, ties))
        return items

    def _left_of(self, leaf: int) -> tuple[int, ...]:
        return tuple(item for item in self.catalog.leaf_items(leaf) if item not in self._out_of_stock)

    def _names_of(self, items: tuple[int, ...]) -> tuple[str, str | None, tuple[str, ...]]:
        """Key and title of the first item, and the keys of the others."""
        first, *others = (self.catalog.keys[item] for item in items)
        return first, self._names.title(items[0]), tuple(others)


@lru_cache(1024)
def _keys(count: int, seed: int) -> tuple[int, ...]:
    """The random keys of the users of one call."""
    return tuple(_SAMPLING.keys(count, torch.Generator().manual_seed(seed), torch.device("cpu")).tolist())
