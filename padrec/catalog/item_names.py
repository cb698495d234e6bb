"""Items by what people call them: their key, or a title that only one of them has."""

from collections.abc import Sequence

from padrec.catalog.catalog import Catalog
from padrec.catalog.errors import InputError


class ItemNames:
    """Finds the items of a catalog by their names."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._titles: dict[str, list[int]] | None = None  # made when a name is no key

    def key(self, name: str) -> str:
        """The key of the item with this key or title; none, and several with this title, are an InputError."""
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

    def rows(self, history: Sequence[str]) -> list[int]:
        """The rows of a user's items in the catalog; see `key`. A single item is an InputError."""
        if isinstance(history, str):
            raise InputError(f"history {history!r}: expected a list of items")
        try:
            return [*map(self._catalog.index, history)]
        except InputError:  # some are called by their titles
            return [self.index(name) for name in history]

    def index(self, name: str) -> int:
        """The row of an item in the catalog; see `key`."""
        return self._catalog.index(name if name in self._catalog else self.key(name))

    def title(self, item: int) -> str | None:
        """The text of an item; None where the catalog has none."""
        return (self._catalog.texts[item] or None) if self._catalog.texts else None
