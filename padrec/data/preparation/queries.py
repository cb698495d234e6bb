"""Order and k-core of a log, as queries.

Loaded only while a log is prepared: importing Ibis takes a second.
"""

from collections.abc import Mapping
from itertools import count
from pathlib import Path

import ibis

from padrec.catalog import InputError
from padrec.data.preparation.stages import Stage

LOG = "log.parquet"
ITEMS = "items.parquet"
USERS = "users.parquet"


def order_log(stage: Stage, read: Path, min_rating: float | None, deduplicate: bool) -> Mapping[str, int]:
    """Number users and items, and drop low ratings and repetitions.

    A user's number is the position of their first interaction in the log, and so is an item's: numbers ascend in the
    order of first appearance, and are found without sorting all users. Writes the tables `USERS` and `ITEMS` (`key`,
    `number`) and `LOG` (`user`, `item`, `time`, `position`).
    """
    log = well_rated(stage.connection.load(read / LOG), min_rating)
    users, items = (
        stage.connection.store(log.group_by(key=log[name]).agg(number=log.position.min()), stage.folder / file)
        for name, file in (("user", USERS), ("item", ITEMS))
    )
    joined = log.join(users, log.user == users.key).join(items, log.item == items.key)
    numbered = joined.select(user=users.number, item=items.number, time=log.time, position=log.position)
    if deduplicate:
        place = ibis.row_number().over(group_by=["user", "item"], order_by=["time", "position"])
        numbered = numbered.mutate(place=place).filter(ibis._.place == 0).drop("place")
    distinct = row_count(stage.connection.store(numbered, stage.folder / LOG))
    stage.progress.state = f"{distinct:,} interactions"
    return {"distinct": distinct}


def find_core(stage: Stage, order: Path, user_core: int, item_core: int) -> Mapping[str, int]:
    """Find the k-core: drop users and items with too few interactions until none has too few.

    Each round counts the interactions with the remaining items; only these items are handed on to the next round.
    Writes the table `ITEMS` (`item`), the items of the core.

    Raises:
        InputError: no interaction is left.
    """
    connection = stage.connection
    log = kept = connection.load(order / LOG)
    n_items = before = row_count(connection.load(order / ITEMS))
    for core_round in count(1):
        left = of_active_users(kept, user_core)
        counts = connection.store(left.group_by("item").agg(n=left.count()), stage.folder / f"{core_round}.parquet")
        enough = counts.filter(counts.n >= item_core).select("item")
        interactions, found = counts.n.sum().to_pyarrow().as_py() or 0, row_count(enough)
        stage.progress.state = f"round {core_round}, {interactions:,} interactions left"
        if found == before:  # `enough` is a part of the items before
            break
        kept, before = log.semi_join(enough, "item"), found
    if interactions == 0:
        raise InputError(
            f"none of {row_count(log)} interactions is left with user_core {user_core} and item_core {item_core}, "
            "expected some: lower them"
        )
    connection.store(enough, stage.folder / ITEMS)
    stage.progress.state = (
        f"{interactions:,} interactions after {core_round} rounds; {found:,} of {n_items:,} items kept, "
        f"{n_items - found:,} dropped"
    )
    return {"core_rounds": core_round, "interactions": interactions, "items": found, "items_dropped": n_items - found}


def well_rated(log: ibis.Table, min_rating: float | None) -> ibis.Table:
    """The interactions whose rating is high enough."""
    return log if min_rating is None else log.filter(log.rating >= min_rating)


def of_active_users(log: ibis.Table, user_core: int) -> ibis.Table:
    """The interactions of users who have enough of them."""
    active = log.group_by("user").having(log.count() >= user_core).agg()
    return log.semi_join(active, "user")


def row_count(table: ibis.Table) -> int:
    """Count the rows."""
    return int(table.count().to_pyarrow().as_py())
