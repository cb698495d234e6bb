"""Histories in, items out: a saved target with its catalog, and a draft that makes it faster."""

from collections.abc import Collection, Sequence, Set
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import torch

from padrec.catalog import Catalog, CatalogTrie, InputError
from padrec.decoding import (
    AutoregressiveDecoder,
    BatchwiseDecoder,
    BeamDecoder,
    CatalogConstraint,
    Decoder,
    DecodingSession,
    DynamicTree,
    ListRequest,
    Prompts,
    Recommendations,
    Sampling,
    SpeculativeDecoder,
    TransformersRunner,
    excluded_leaves,
)
from padrec.targets import SavedTarget, fingerprint, to_precision

Search = Literal["list", "beam"]
Exclude = Literal["history"] | Set[str] | Sequence[Collection[str]]

_BATCH_SIZE = 32
_MOST_SESSIONS = 8
# Of the tree: drafts are surer of greedy targets than of sampled ones (docs/decoding.md, Trees).
_GREEDY_TEMPERATURE = 0.5


@dataclass(frozen=True)
class RecommendedItem:
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


class Recommender:
    """Recommends with a saved target; `load` reads it.

    Args:
        target: the target with its catalog and prompt format.
        decoder: writes the lists; None is `AutoregressiveDecoder`.
        device: where to compute; None is the GPU where there is one, else the CPU.
        dtype: precision of the weights; None is bfloat16 on a GPU and float32 on the CPU.

    Attributes:
        catalog: the items.

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
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        known_as = fingerprint(target.model)  # before the change of precision, as drafts know it
        model = target.model.eval()
        torch.nn.Module.to(model, self._device)  # in place; transformers wraps its own `to` without types
        to_precision(model, dtype or (torch.bfloat16 if self._device.type == "cuda" else torch.float32))
        self._runner = TransformersRunner(model, known_as)
        self.catalog, self._vocabulary = target.catalog, target.vocabulary
        self._format = target.prompt_format
        self._encoder = self._format.encoder(self._vocabulary, self.catalog)
        self._names = _ItemNames(self.catalog)
        self._trie = CatalogTrie(self.catalog, self._vocabulary).to(self._device)
        self._decoders: dict[Search, Decoder] = {"list": decoder or AutoregressiveDecoder(), "beam": BeamDecoder()}
        # Kept, since a session holds the cache and the captured rounds; the least recently used one is given up.
        self._session = lru_cache(_MOST_SESSIONS)(self._new_session)

    @classmethod
    def load(
        cls,
        target: str | Path,
        draft: str | Path | None = None,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> "Recommender":
        """Read a target and a draft for it.

        Args:
            target: folder of `TargetRecommender.save_pretrained`, or a checkpoint of `padrec fit`.
            draft: folder or checkpoint of a draft of this target; None writes the same lists without, slower.
            device: see `Recommender`.
            dtype: see `Recommender`.

        Raises:
            InputError: one of them is missing, malformed or of another kind, or the target lacks its catalog.
        """
        decoder: Decoder | None = None
        if draft is not None:
            from padrec.drafts import FeatureDraft

            tree = DynamicTree(greedy_temperature=_GREEDY_TEMPERATURE)
            decoder = SpeculativeDecoder(FeatureDraft(str(draft)), tree)
        path = Path(target)
        if path.is_dir():
            saved = SavedTarget.read(path)
        else:
            # Only here: the checkpoints of Lightning need Lightning, which takes seconds to import.
            from padrec.targets import TargetRecommender

            saved = TargetRecommender.load(path).saved()
        return cls(saved, decoder, device=device, dtype=dtype)

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
            histories: of each user the items, oldest first, by their keys or by titles that only one item has.
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
                beam that shall sample.
        """
        keys = [[self._names.key(name) for name in history] for history in histories]
        session = self._session(k, search, temperature)
        batch = self._format.prompts(keys, self._encoder, self.catalog).to(self._device)
        excluded = self._excluded(keys, exclude)
        leaves = excluded_leaves(self.catalog, excluded, k).to(self._device) if any(excluded) else None
        prompts = Prompts(batch.tokens, batch.slots, batch.lengths, excluded=leaves)
        lists, _ = session.decode(prompts, torch.Generator().manual_seed(seed))
        rows = zip(lists.leaves.tolist(), self._log_probs(lists, k), excluded, strict=True)
        return [self._items(*row) for row in rows]

    def _excluded(self, histories: Sequence[Sequence[str]], exclude: Exclude | None) -> list[set[int]]:
        """The item indices that each row excludes."""
        if exclude is None:
            return [set() for _ in histories]
        if exclude == "history":
            exclude = histories
        elif isinstance(exclude, str):
            raise InputError(f"exclude {exclude!r}: expected 'history', or items for all users or each of them")
        if isinstance(exclude, Set):
            for_all = {self._names.index(name) for name in exclude}
            return [for_all for _ in histories]
        if len(exclude) != len(histories):
            found = f"{len(exclude)} collections of items"
            raise InputError(f"exclude: {found}, expected one for each of {len(histories)} users, or a set for all")
        return [{self._names.index(name) for name in items} for items in exclude]

    def _new_session(self, k: int, search: Search, temperature: float) -> DecodingSession[Recommendations]:
        """What writes such lists."""
        if search not in self._decoders:
            raise InputError(f"search {search!r}: expected 'list' or 'beam'")
        constraint = CatalogConstraint(self._trie, self._vocabulary, k)
        request = ListRequest(self.catalog, self._vocabulary, k, constraint, Sampling(temperature))  # type: ignore[arg-type]
        return BatchwiseDecoder(self._decoders[search], _BATCH_SIZE).bind(self._runner, request)

    def _log_probs(self, lists: Recommendations, k: int) -> list[list[float]]:
        """Of each item the sum over its codes; its separator is certain."""
        tokens = torch.nn.functional.pad(
            lists.log_probs, (0, k * self._vocabulary.item_length - lists.log_probs.shape[1])
        )
        sums: list[list[float]] = tokens.view(len(tokens), k, -1).sum(-1).tolist()
        return sums

    def _items(self, leaves: list[int], log_probs: list[float], excluded: set[int]) -> list[RecommendedItem]:
        items = []
        for leaf, log_prob in zip(leaves, log_probs, strict=True):
            first, *others = (item for item in self.catalog.leaf_items(leaf) if item not in excluded)
            ties = tuple(self.catalog.keys[item] for item in others)
            items.append(RecommendedItem(self.catalog.keys[first], self._names.title(first), log_prob, ties))
        return items


class _ItemNames:
    """Finds items by key or title."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._titles: dict[str, list[int]] | None = None  # made when a name is no key

    def key(self, name: str) -> str:
        """The key of an item.

        Raises:
            InputError: no item has this key or title, or several have this title.
        """
        if name in self._catalog:
            return name
        if self._titles is None:
            self._titles = {}
            for item, title in enumerate(self._catalog.texts or ()):
                self._titles.setdefault(title, []).append(item)
        items = self._titles.get(name, [])
        if len(items) > 1:
            keys = ", ".join(repr(self._catalog.keys[item]) for item in items[:3])
            raise InputError(f"title {name!r}: that of {len(items)} items ({keys} …), expected the key of one of them")
        if not items:
            catalog = self._catalog
            raise InputError(f"item {name!r}: no key or title of the {catalog.n_items} items of {catalog.source}")
        return self._catalog.keys[items[0]]

    def index(self, name: str) -> int:
        """The row of an item in the catalog; see `key`."""
        return self._catalog.index(self.key(name))

    def title(self, item: int) -> str | None:
        return (self._catalog.texts[item] or None) if self._catalog.texts else None
