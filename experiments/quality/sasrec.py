"""SASRec of RecTools as a baseline, trained on the interactions that a target of the study trains on.

Needs the environment of `sasrec_requirements.txt`, and nothing of padrec: it reads an LC-Rec folder, splits it by
leave-one-out and writes one JSON line `{"user": key, "history": [item key, …], "items": [item key, …]}` for each user,
the format of `padrec.RecommendationWriter`, which `score_lists.py` scores. Only training items are learnt from; lists
for the test see the validation item in the history.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from pytorch_lightning import Trainer, seed_everything
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel

_Rows = dict[str, list[str]]


def main() -> None:
    """Train, and write `validation.jsonl`, `test.jsonl` and `settings.json` to a new folder."""
    arguments = _parse()
    arguments.output.mkdir(parents=True)
    seed_everything(arguments.seed)
    content = json.loads((arguments.data / "Beauty.inter.json").read_text())
    rows = {user: [str(item) for item in items] for user, items in content.items()}
    train = {user: items[:-2] for user, items in rows.items()}
    model = SASRecModel(
        n_blocks=arguments.blocks,
        n_heads=arguments.heads,
        n_factors=arguments.factors,
        dropout_rate=arguments.dropout,
        session_max_len=arguments.max_history,
        loss=arguments.loss,
        n_negatives=arguments.negatives,
        lr=arguments.learning_rate,
        batch_size=arguments.batch_size,
        get_trainer_func=_trainer,
        get_trainer_func_kwargs={"epochs": arguments.epochs},
    )
    model.fit(_dataset(train))
    for part, last in (("validation", -2), ("test", -1)):
        _write(model, {user: items[:last] for user, items in rows.items()}, arguments.output / f"{part}.jsonl")
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(arguments).items()}
    (arguments.output / "settings.json").write_text(json.dumps(settings, indent=2) + "\n")


def _trainer(epochs: int, **_: Any) -> Trainer:
    return Trainer(max_epochs=epochs, logger=False, enable_checkpointing=False, enable_progress_bar=False)


def _dataset(rows: _Rows) -> Dataset:
    pairs = [(user, item, place) for user, items in rows.items() for place, item in enumerate(items)]
    table = pd.DataFrame(pairs, columns=[Columns.User, Columns.Item, Columns.Datetime])
    # RecTools wants times; only their order within a user counts.
    table[Columns.Datetime] = pd.to_datetime(table[Columns.Datetime], unit="D")
    table[Columns.Weight] = 1.0
    return Dataset.construct(table)


@torch.inference_mode()
def _write(model: SASRecModel, histories: _Rows, path: Path, length: int = 10) -> None:
    """Rank all items for every user; items of the history may be recommended again, as by the targets."""
    users: Sequence[Any] = list(histories)
    found = model.recommend(users, _dataset(histories), k=length, filter_viewed=False)
    lists = found.sort_values([Columns.User, Columns.Rank]).groupby(Columns.User)[Columns.Item].apply(list)
    with path.open("x") as file:
        for user, history in histories.items():
            file.write(json.dumps({"user": user, "history": history, "items": lists[user]}) + "\n")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder beauty/")
    parser.add_argument("--output", type=Path, required=True, help="a new folder")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--factors", type=int, default=128)
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--heads", type=int, default=2)
    parser.add_argument("--dropout", type=float, default=0.5)
    parser.add_argument("--loss", default="softmax")
    parser.add_argument("--negatives", type=int, default=256)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--max-history", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
