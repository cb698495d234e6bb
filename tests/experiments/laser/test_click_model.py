import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from experiments.laser import click_model
from experiments.laser.click_model import auc, examples_of, intervals, log_loss, main
from padrec.catalog import InputError
from padrec.data import MiniOneRecReader
from tests.data.readers.test_minionerec import write_folder
from tests.tiny_language_model import save_tiny_language_model


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans(), st.integers(0, 2)), min_size=2, max_size=30))
def test_auc_is_the_weighted_share_of_pairs_in_order(rows: list[tuple[int, bool, int]]) -> None:
    logits, labels, weights = (torch.tensor([float(row[column]) for row in rows]) for column in range(3))
    pairs = [(a, b) for a in rows if a[1] for b in rows if not b[1]]
    total = sum(a[2] * b[2] for a, b in pairs)
    if total == 0:
        return
    expected = sum(a[2] * b[2] * ((a[0] > b[0]) + (a[0] == b[0]) / 2) for a, b in pairs) / total
    assert float(auc(logits, labels, weights)) == pytest.approx(expected)


def test_log_loss_is_the_weighted_mean() -> None:
    logits, labels, weights = torch.tensor([0.0, 2.0]), torch.tensor([1.0, 0.0]), torch.tensor([3.0, 1.0])
    expected = (3 * torch.tensor(0.5).log() + torch.sigmoid(torch.tensor(-2.0)).log()) / -4
    torch.testing.assert_close(log_loss(logits, labels, weights).float(), expected)


def test_candidates_are_what_came_next_and_what_was_never_bought(tmp_path: Path) -> None:
    split = MiniOneRecReader(write_folder(tmp_path)).read().split()
    generator = torch.Generator().manual_seed(0)
    found = examples_of(split, "test", torch.ones(8).double(), generator)
    user = split.user_keys.index("c")
    rows = found.rows(found.users == user)
    assert rows.candidates[rows.labels == 1].tolist() == [0, 1]
    assert len(rows.labels) == 2 * 5
    assert not set(rows.candidates[rows.labels == 0].tolist()) & {7, 0, 1}
    assert rows.histories.unique(dim=0).tolist() == [[-1] * 9 + [7]]


def test_differences_are_paired_over_users() -> None:
    users = torch.arange(40).repeat_interleave(2)
    labels = torch.tensor([1.0, 0.0]).repeat(40)
    test = click_model.Examples(users, torch.full((80, 1), -1), torch.zeros(80, dtype=torch.long), labels)
    good = (labels + torch.linspace(-0.7, 0.7, 80)).expand(2, -1)
    found = intervals(test, {"exact": good, "same": good.clone(), "bad": -good}, "exact", seed=0)
    assert found["same"]["auc_difference_ci95"] == [0.0, 0.0]
    assert found["bad"]["auc_difference_ci95"][1] < 0 < found["bad"]["log_loss_difference_ci95"][0]


def test_the_report_compares_texts_with_the_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(click_model, "_RESAMPLES", 5)
    data = tmp_path / "shop"
    data.mkdir()
    write_folder(data)
    model = str(save_tiny_language_model(tmp_path / "language-model"))
    for name, keys in (("items", "01234567"), ("users", "abc")):
        lines = (json.dumps({"key": key, "text": f"about {key}"}) for key in keys)
        (tmp_path / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in lines))
    given = ["--data", str(data), "--language-model", model, "--reference", "exact", "--seeds", "2", "--epochs", "1"]
    texts = [f"--texts={name}={tmp_path / 'items.jsonl'}" for name in ("exact", "relaxed")]
    users = [f"--users={name}={tmp_path / 'users.jsonl'}" for name in ("exact", "relaxed")]
    main([*given, *texts, *users, "--output", str(tmp_path / "clicks")])
    report = json.loads((tmp_path / "clicks" / "report.json").read_text())
    assert list(report["models"]) == ["none", "exact", "relaxed"]
    assert report["models"]["relaxed"]["auc_difference"] == 0  # the same texts
    assert len(report["models"]["none"]["auc_by_seed"]) == 2
    assert "| relaxed |" in (tmp_path / "clicks" / "report.md").read_text()
    (tmp_path / "others.jsonl").write_text('{"key": "x", "text": "y"}\n')
    with pytest.raises(InputError, match=r"others.jsonl: no text of any of the 8 keys, such as '0'"):
        main([*given, f"--texts=exact={tmp_path / 'others.jsonl'}", "--output", str(tmp_path / "no")])
