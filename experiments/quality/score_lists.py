"""Scores files of ranked lists, by whatever program, with this library's metrics.

```bash
python -m experiments.quality.score_lists path/to/beauty runs/quality/sasrec/test.jsonl --part test
```
"""

import argparse
import json
from pathlib import Path
from typing import Literal

import torch

from padrec import InputError, LCRecReader
from padrec.data import leave_one_out
from padrec.data.training_rows import read_generated_lists
from padrec.metrics import NDCG, Recall


def score_lists(data: Path, lists: Path, part: Literal["validation", "test"]) -> dict[str, float]:
    """Recall and NDCG at 5 and 10 by item of every user's list.

    Args:
        data: an LC-Rec folder, split by leave-one-out.
        lists: JSON lines `{"user": key, "history": […], "items": [item key, …]}`, one for each user.
        part: which of the user's items is the truth.

    Raises:
        InputError: a wrong file, an unknown user, or other users than those of the data.
    """
    dataset = LCRecReader(str(data)).read()
    split = leave_one_out(dataset.interactions, "error")  # type: ignore[arg-type]  # the format has no split
    truth = split.validation if part == "validation" else split.test
    users = [str(json.loads(line)["user"]) for line in lists.read_text().splitlines()]
    if sorted(users) != sorted(split.user_keys):
        raise InputError(f"{lists}: {len(users)} lists, expected one for each of the {len(split.user_keys)} users")
    _, items = read_generated_lists([str(lists)], dataset.catalog, max_history=1, list_length=10)
    found = items.padded()
    row = {user: number for number, user in enumerate(split.user_keys)}
    relevant = truth.select(torch.tensor([row[user] for user in users])).padded()
    scores: dict[str, float] = {}
    for k in (5, 10):
        for name, metric in ((f"recall@{k}", Recall(k)), (f"ndcg@{k}", NDCG(k))):
            metric.update(found, relevant)
            scores[name] = float(metric.compute())
    return scores


def main() -> None:
    """Print the scores as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="the folder beauty/")
    parser.add_argument("lists", type=Path)
    parser.add_argument("--part", choices=["validation", "test"], default="test")
    arguments = parser.parse_args()
    print(json.dumps(score_lists(arguments.data, arguments.lists, arguments.part), indent=2))


if __name__ == "__main__":
    main()
