"""A made-up log in the format of Amazon reviews 2018: python sample.py FOLDER [USERS] [ITEMS].

Writes what a shop would have: `reviews.json.gz`, `meta.json.gz`, and for the last commands of the tutorial
`new_users.jsonl` (users who are not in the log) and `later.item.json` (items that are not).
"""

import gzip
import json
import sys
from collections.abc import Iterable
from pathlib import Path

import torch

from padrec import Catalog, SyntheticReader
from padrec.data import Interactions

_NEW_USERS = 5
_LATER_ITEMS = 8
_FIRST_DAY = 1_500_000_000  # seconds since 1970
_DAY = 86_400


def main(folder: Path, n_users: int = 1000, n_items: int = 300) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    world = SyntheticReader(n_users + _NEW_USERS, n_items, codebook_sizes=(12, 12, 12), mean_length=10).read()
    catalog, users = world.catalog, world.interactions
    assert isinstance(users, Interactions)
    keys = [f"B{item:05d}" for item in range(n_items)]
    _write_gzip(folder / "reviews.json.gz", _reviews(users, keys, n_users))
    _write_gzip(folder / "meta.json.gz", _metadata(catalog, keys))
    histories = ([keys[item] for item in users.sequences.row(n_users + user).tolist()] for user in range(_NEW_USERS))
    rows = [{"user": f"new-{user}", "history": history} for user, history in enumerate(histories)]
    (folder / "new_users.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    later = {f"L{item:05d}": _text(catalog, item, number=n_items + item) for item in range(_LATER_ITEMS)}
    (folder / "later.item.json").write_text(json.dumps(later, indent=2) + "\n")


def _reviews(users: Interactions, keys: list[str], n_users: int) -> Iterable[dict[str, object]]:
    """All reviews of the users in the log; one user in ten also reviews something that nobody else does."""
    generator = torch.Generator().manual_seed(0)
    for user in range(n_users):
        items = [keys[item] for item in users.sequences.row(user).tolist()]
        if user % 10 == 0:
            items.insert(2, f"R{user:05d}")
        days = torch.randint(0, 1000, (len(items),), generator=generator).sort().values.tolist()
        stars = torch.randint(3, 6, (len(items),), generator=generator).tolist()
        for item, day, rating in zip(items, days, stars, strict=True):
            time = _FIRST_DAY + day * _DAY
            yield {"overall": float(rating), "reviewerID": f"A{user:05d}", "asin": item, "unixReviewTime": time}


def _metadata(catalog: Catalog, keys: list[str]) -> Iterable[dict[str, object]]:
    for item, key in enumerate(keys):
        text = _text(catalog, item, number=item)
        yield {"asin": key, "title": text["title"], "brand": text["brand"], "category": text["categories"]}


def _text(catalog: Catalog, item: int, number: int) -> dict[str, object]:
    """What is written about an item, or about a new one like it."""
    assert catalog.texts is not None
    adjective, noun, *_ = catalog.texts[item].split()
    brand = f"Brand {int(catalog.codes[item, 2])}"
    return {"title": f"{adjective} {noun} no. {number}", "brand": brand, "categories": ["Home", f"{noun}s"]}


def _write_gzip(path: Path, rows: Iterable[dict[str, object]]) -> None:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *(int(number) for number in sys.argv[2:]))
