"""The kept interactions with their split, and their users."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from padrec.data.preparation.core_log import CoreLog, CorePart
from padrec.data.preparation.prepared_folder import INTERACTIONS, SPLIT_TYPE, USERS
from padrec.data.preparation.progress import Progress
from padrec.data.preparation.split_rule import PARTS, SplitRule


def write_interactions(log: CoreLog, split: SplitRule, interactions: Path, users: Path) -> dict[str, int]:
    """Write the table of interactions and that of users, part by part.

    Args:
        log: the kept interactions.
        split: deals them out.
        interactions: file for the interactions.
        users: file for the users.

    Returns:
        The number of users, and that of interactions in each part of the split.

    Raises:
        InputError: the split leaves a part empty.
    """
    progress = Progress("split")
    partition = split.partition(log.times)
    n_users = 0
    sizes = np.zeros(len(PARTS), dtype=np.int64)
    with (
        pq.ParquetWriter(interactions, INTERACTIONS, compression="zstd") as interaction_writer,
        pq.ParquetWriter(users, USERS, compression="zstd") as user_writer,
    ):
        for part in log.parts():
            dealt = partition(part.offsets, part.times)
            if len(part.users):
                interaction_writer.write_table(_rows(part, n_users, dealt))
                user_writer.write_table(pa.table({"user": part.user_keys}, USERS))
            n_users += len(part.user_keys)
            sizes += np.bincount(dealt, minlength=len(PARTS))
            progress.update(f"{int(sizes.sum()):,} interactions")
    counts = {"users": n_users, **dict(zip(PARTS, sizes.tolist(), strict=True))}
    progress.end(", ".join(f"{count:,} {name}" for name, count in counts.items()))
    return counts


def _rows(part: CorePart, first_user: int, dealt: NDArray[np.int8]) -> pa.Table:
    split = pa.DictionaryArray.from_arrays(dealt, pa.array(PARTS)).cast(SPLIT_TYPE)
    return pa.table(
        {
            "user": (part.users + first_user).astype(np.int32),
            "item": part.items,
            "time": pa.array(part.times).cast(pa.timestamp("us", "UTC")),
            "split": split,
        },
        INTERACTIONS,
    )
