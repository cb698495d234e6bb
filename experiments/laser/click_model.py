"""What knowledge texts are worth to a click model: AUC and log-loss without texts, and with those of several arms.

    python -m experiments.laser.click_model --data DATA/office --language-model FOLDER --output runs/laser/clicks \
        --texts exact=exact.jsonl --texts relaxed=relaxed.jsonl --reference exact

A file is what `TextWriter` writes about items; `--users exact=users.jsonl` adds texts about users. The model is a deep
interest network (DIN, arXiv 1706.06978): the candidate attends to the user's last ten items, each an embedding of its
own plus a projection of its text's vector: the mean of the language model's last hidden states, in the 64 principal
components of the reference's texts.

A positive is an item that the user bought next: in training every item of the training sequences but the first, in
validation and test those of the split. Four negatives per positive are drawn by popularity in the training sequences,
so that popularity alone tells nothing, among items that the user never bought; all models get the same ones.
Learning rate, weight decay and the epoch are chosen by validation AUC, the first two with the first seed.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from experiments.study import interval_of
from padrec import InputError, MiniOneRecReader
from padrec.data import Split
from padrec.data.batches import TensorBatch
from padrec.data.json_file import read_json_lines
from padrec.decoding.device.device_name import device_name
from padrec.evaluation.report import check_writable, markdown_table, software_versions, write_report
from padrec.quantization.text_embeddings import encode_texts, load_encoder

_HISTORY, _NEGATIVES, _COMPONENTS, _WIDTH = 10, 4, 64, 16
_RATES, _DECAYS = (1e-3, 3e-3), (1e-5, 1e-3)
_RESAMPLES = 1000
_PARTS = ("train", "validation", "test")


@dataclass
class Examples(TensorBatch):
    """Candidates with the histories before them; labels are 1 for an item that the user bought next."""

    users: Tensor  # int64 [n]
    histories: Tensor  # items, oldest first, int64 [n, H], -1 for none
    candidates: Tensor  # int64 [n]
    labels: Tensor  # float32 [n]


@dataclass(frozen=True)
class Vectors:
    """Text vectors of items and users, with a row of zeros at the end; None without texts."""

    items: Tensor | None = None  # float32 [n_items + 1, d]
    users: Tensor | None = None  # float32 [n_users + 1, d]


class ClickModel(nn.Module):
    """The logit that a user buys a candidate next."""

    item_vectors: Tensor
    user_vectors: Tensor

    def __init__(self, n_items: int, vectors: Vectors) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(n_items + 1, _WIDTH, padding_idx=n_items)
        nn.init.normal_(self.embeddings.weight, std=0.05)
        self.register_buffer("item_vectors", vectors.items)
        self.register_buffer("user_vectors", vectors.users)
        self.of_item = None if vectors.items is None else nn.Linear(vectors.items.shape[1], _WIDTH, bias=False)
        self.of_user = None if vectors.users is None else nn.Linear(vectors.users.shape[1], _WIDTH, bias=False)
        self.attention = nn.Sequential(nn.Linear(4 * _WIDTH, 32), nn.PReLU(), nn.Linear(32, 1))
        inputs = (3 if vectors.users is None else 4) * _WIDTH
        self.head = nn.Sequential(nn.Linear(inputs, 64), nn.PReLU(), nn.Dropout(0.2), nn.Linear(64, 1))

    def _items(self, items: Tensor) -> Tensor:
        items = items % self.embeddings.num_embeddings  # -1 becomes the last row
        found: Tensor = self.embeddings(items)
        return found if self.of_item is None else found + self.of_item(self.item_vectors[items])

    def forward(self, examples: Examples) -> Tensor:
        history, candidate = self._items(examples.histories), self._items(examples.candidates)
        asked = candidate[:, None].expand_as(history)  # [n, H, d]
        pairs = torch.cat([history, asked, history - asked, history * asked], -1)
        absent = (examples.histories == -1)[..., None]
        interest = (self.attention(pairs).masked_fill(absent, 0) * history.masked_fill(absent, 0)).sum(1)
        parts = [interest, candidate, interest * candidate]
        if self.of_user is not None:
            parts.append(self.of_user(self.user_vectors[examples.users]))
        logits: Tensor = self.head(torch.cat(parts, -1))[:, 0]
        return logits


def examples_of(split: Split, part: str, weights: Tensor, generator: torch.Generator) -> Examples:
    """Positives and negatives of a part of the split, user by user."""
    rows: list[tuple[int, list[int], int, float]] = []
    for user in range(len(split.user_keys)):
        train, validation, test = (items.row(user).tolist() for items in (split.train, split.validation, split.test))
        if part == "train":
            pairs = [(train[:at], train[at]) for at in range(1, len(train))]
        else:
            before, truth = (train, validation) if part == "validation" else (train + validation, test)
            pairs = [(before, item) for item in truth if before]
        if not pairs:
            continue
        free = weights.clone()
        free[torch.tensor(train + validation + test)] = 0
        drawn = torch.multinomial(free, len(pairs) * _NEGATIVES, replacement=True, generator=generator).tolist()
        for at, (history, item) in enumerate(pairs):
            shown = [-1] * (_HISTORY - len(history)) + history[-_HISTORY:]
            rows.append((user, shown, item, 1.0))
            rows += [(user, shown, other, 0.0) for other in drawn[at * _NEGATIVES : (at + 1) * _NEGATIVES]]
    users, histories, candidates, labels = zip(*rows, strict=True)
    return Examples(torch.tensor(users), torch.tensor(histories), torch.tensor(candidates), torch.tensor(labels))


class TextVectors:
    """Vectors of texts, in one basis for all arms, so that equal texts have equal vectors.

    Args:
        language_model: folder of the model whose hidden states they are.
        device: where it computes.
    """

    def __init__(self, language_model: str, device: torch.device) -> None:
        self._model, self._tokenizer = load_encoder(language_model)
        self._model.to(device=device)  # type: ignore[call-arg]  # transformers wraps `to` without its types
        self._mean, self._directions = torch.zeros(0), torch.zeros(0)

    def of(self, path: Path, keys: Sequence[str], sets_basis: bool) -> Tensor:
        """A vector of each key's text, float32 `[n + 1, d]`; zeros where there is no text, and in the last row."""
        texts = {str(row["key"]): str(row["text"]) for _, row in read_json_lines(path, '{"key": …, "text": …}')}
        known = [row for row, key in enumerate(keys) if key in texts]
        if not known:
            raise InputError(f"{path}: no text of any of the {len(keys)} keys, such as {keys[0]!r}: expected some")
        states = encode_texts([texts[keys[row]] or " " for row in known], self._model, self._tokenizer).double()
        if sets_basis:
            self._mean = states.mean(0)
            _, _, directions = torch.linalg.svd(states - self._mean, full_matrices=False)
            directions = directions[:_COMPONENTS]
            spread = ((states - self._mean) @ directions.T).std(0).clamp(min=1e-6)
            self._directions = directions.T / spread
        vectors = torch.zeros(len(keys) + 1, self._directions.shape[1])
        vectors[torch.tensor(known)] = ((states - self._mean) @ self._directions).float()
        return vectors


def auc(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Weighted area under the ROC curve, float64 `[...]`; ties count half. All `[..., n]`."""
    order = logits.argsort(-1, descending=True)
    sorted_logits = logits.gather(-1, order)
    positive = (weights * labels).gather(-1, order).double()
    negative = (weights * (1 - labels)).gather(-1, order).double()
    # Of equal logits all count as one step of the curve.
    last = torch.cat([sorted_logits[..., 1:] != sorted_logits[..., :-1], torch.ones_like(order[..., :1]).bool()], -1)
    step = torch.cat([torch.zeros_like(order[..., :1]), last.long().cumsum(-1)[..., :-1]], -1)
    hits, misses = (torch.zeros_like(values).scatter_add(-1, step, values) for values in (positive, negative))
    area = ((hits.cumsum(-1) - hits / 2) * misses).sum(-1)
    return area / (positive.sum(-1) * negative.sum(-1))


def log_loss(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean of the cross-entropy in nats, `[...]`."""
    losses = nn.functional.binary_cross_entropy_with_logits(logits.double(), labels.double(), reduction="none")
    return (losses * weights).sum(-1) / weights.sum(-1)


@torch.inference_mode()
def predicted(model: ClickModel, examples: Examples) -> Tensor:
    """Logits, float32 `[n]`."""
    model.eval()
    return torch.cat([model(examples.rows(rows)) for rows in torch.arange(len(examples.labels)).split(4096)])


def fit(
    parts: dict[str, Examples], vectors: Vectors, n_items: int, rate: float, decay: float, epochs: int, seed: int
) -> tuple[float, int, Tensor]:
    """Validation AUC of the best epoch, its number, and its test logits."""
    torch.manual_seed(seed)
    train, validation = parts["train"], parts["validation"]
    model = ClickModel(n_items, vectors).to(train.labels.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=decay, fused=True)
    best, best_epoch, logits = -1.0, 0, torch.zeros(0)
    for epoch in range(1, epochs + 1):
        model.train()
        for rows in torch.randperm(len(train.labels)).split(1024):
            batch = train.rows(rows.to(train.labels.device))
            loss = nn.functional.binary_cross_entropy_with_logits(model(batch), batch.labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        ones = torch.ones_like(validation.labels)
        found = float(auc(predicted(model, validation), validation.labels, ones))
        if found > best:
            best, best_epoch, logits = found, epoch, predicted(model, parts["test"])
    return best, best_epoch, logits


def intervals(test: Examples, logits: dict[str, Tensor], reference: str, seed: int) -> dict[str, dict[str, Any]]:
    """AUC and log-loss of every model, and their differences to the reference with 95 % intervals over users.

    Args:
        test: the examples.
        logits: of every seed's model by name, `[seeds, n]`.
        reference: the name to compare with.
        seed: of the bootstrap, the same users for all models.
    """
    device = test.labels.device
    _, place = test.users.unique(return_inverse=True)
    n_users, ones = int(place.max()) + 1, torch.ones_like(test.labels)
    generator = torch.Generator().manual_seed(seed)
    scores = {"auc": auc, "log_loss": log_loss}
    drawn: dict[str, dict[str, list[float]]] = {name: {score: [] for score in scores} for name in logits}
    for _ in range(_RESAMPLES):
        counts = torch.bincount(torch.randint(n_users, (n_users,), generator=generator), minlength=n_users)
        weights = counts.to(device)[place].float()
        for name, values in logits.items():
            for score, function in scores.items():
                drawn[name][score].append(float(function(values, test.labels.expand_as(values), weights).mean()))
    result: dict[str, dict[str, Any]] = {}
    for name, values in logits.items():
        result[name] = {}
        for score, function in scores.items():
            by_seed = function(values, test.labels.expand_as(values), ones)
            of_reference = function(logits[reference], test.labels.expand_as(logits[reference]), ones)
            differences = torch.tensor(drawn[name][score]) - torch.tensor(drawn[reference][score])
            result[name] |= {
                score: float(by_seed.mean()),
                f"{score}_by_seed": by_seed.tolist(),
                f"{score}_difference": float((by_seed - of_reference).mean()),
                f"{score}_difference_ci95": interval_of(differences),
            }
    return result


def read_texts(
    arguments: argparse.Namespace, item_keys: Sequence[str], user_keys: Sequence[str], device: torch.device
) -> dict[str, Vectors]:
    """The vectors of every name's texts, and none at all."""
    found: dict[str, dict[str, Tensor]] = {}
    for kind, entries, keys in (("items", arguments.texts, item_keys), ("users", arguments.users, user_keys)):
        if not entries:
            continue
        vectors = TextVectors(arguments.language_model, device)
        paths = dict(entry.split("=", 1) for entry in entries)
        for name in sorted(paths, key=lambda name: name != arguments.reference):
            of_name = vectors.of(Path(paths[name]), keys, sets_basis=name == arguments.reference)
            found.setdefault(name, {})[kind] = of_name
    names = [entry.partition("=")[0] for entry in arguments.texts]
    return {"none": Vectors()} | {name: Vectors(**found[name]) for name in names}


def chosen_fits(
    parts: dict[str, Examples], vectors: Vectors, n_items: int, epochs: int, seeds: int
) -> tuple[dict[str, Any], Tensor]:
    """The settings that validation chooses, and every seed's test logits, `[seeds, n]`."""
    tried = [(setting, fit(parts, vectors, n_items, *setting, epochs, 0)) for setting in product(_RATES, _DECAYS)]
    (rate, decay), first = max(tried, key=lambda pair: pair[1][0])
    fits = [first, *(fit(parts, vectors, n_items, rate, decay, epochs, seed) for seed in range(1, seeds))]
    validation = sum(best for best, _, _ in fits) / len(fits)
    chosen = {"learning_rate": rate, "weight_decay": decay, "epochs": [epoch for _, epoch, _ in fits]}
    return chosen | {"validation_auc": validation}, torch.stack([logits for _, _, logits in fits])


def main(args: list[str] | None = None) -> None:
    """Read the arguments, fit all models and write the report."""
    arguments = _parser().parse_args(args)
    check_writable(arguments.output)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dataset = MiniOneRecReader(arguments.data).read()
    split, n_items = dataset.split(), dataset.catalog.n_items
    popularity = torch.bincount(split.train.items, minlength=n_items).double() + 1e-9
    generator = torch.Generator().manual_seed(0)
    parts = {name: examples_of(split, name, popularity, generator).to(device) for name in _PARTS}
    texts = read_texts(arguments, dataset.catalog.keys, split.user_keys, device)
    chosen: dict[str, dict[str, Any]] = {}
    logits: dict[str, Tensor] = {}
    for name, vectors in texts.items():
        chosen[name], logits[name] = chosen_fits(parts, vectors, n_items, arguments.epochs, arguments.seeds)
        print(f"{name}: {chosen[name]}", flush=True)
    found = intervals(parts["test"], logits, arguments.reference, seed=0)
    content = {
        "dataset": dataset.name,
        "users": len(parts["test"].users.unique()),
        **{f"{name}_examples": len(examples.labels) for name, examples in parts.items()},
        "seeds": arguments.seeds,
        "reference": arguments.reference,
        "device": device_name(device),
        "versions": software_versions(),
        "models": {name: chosen[name] | found[name] for name in texts},
    }
    write_report(arguments.output, content, _markdown(content))
    print(_markdown(content))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", required=True, help="folder that MiniOneRecReader reads")
    parser.add_argument("--language-model", required=True, help="folder of the model that makes vectors of texts")
    parser.add_argument("--output", type=Path, required=True, help="new folder for the report")
    parser.add_argument("--texts", action="append", required=True, metavar="NAME=FILE", help="texts about items")
    parser.add_argument("--users", action="append", default=[], metavar="NAME=FILE", help="texts about users")
    parser.add_argument("--reference", required=True, help="the name that others are compared with")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=20)
    return parser


def _markdown(content: dict[str, Any]) -> str:
    header = ["texts", "AUC", "difference (95 %)", "log-loss", "difference (95 %)"]
    rows = [[name, *_cells(model, "auc"), *_cells(model, "log_loss")] for name, model in content["models"].items()]
    return f"# Click model on {content['dataset']}\n\n{markdown_table(header, rows)}\n"


def _cells(model: dict[str, Any], score: str) -> tuple[str, str]:
    low, high = model[f"{score}_difference_ci95"]
    return f"{model[score]:.4f}", f"{model[f'{score}_difference']:+.4f} ({low:+.4f} – {high:+.4f})"


if __name__ == "__main__":
    main()
