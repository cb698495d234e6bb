import json
from pathlib import Path

import pytest

from experiments.quality.report import markdown, study
from padrec import InputError
from tests.experiments.quality.test_choose import write_run


def write_test(runs: Path, name: str, ndcg: float) -> None:
    """The report of a test as `SpeculativeEvaluator` writes it, as far as the study reads it."""
    quality = {"recall@5": 0.1, "recall@10": 0.2, "ndcg@5": 0.05, "ndcg@10": ndcg, "valid_items": 1.0}
    arm = {**quality, "seconds": 8.0, "target_passes": 392, "lists_per_second": 1.0, "latency_ms": {"p50": 7.5}}
    settings = {"dataset": "toy", "users": 8, "batch_size": 4, "precision": "32-true", "device": "gpu", "seed": 0}
    folder = runs / "test" / name
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps({**settings, "arms": {"autoregressive": arm, "beam": arm}}))


def test_a_study_names_what_was_chosen_and_how_it_tested(tmp_path: Path) -> None:
    write_run(tmp_path, "shipped-base", 0.01, 0.03)
    write_run(tmp_path, "shipped-small", 0.02)
    for number, ndcg in ((1, 0.025), (2, 0.026)):
        write_run(tmp_path, f"list-shipped-{number}", ndcg)
    for name in ("shipped", "cost"):
        write_test(tmp_path, name, 0.0384)
    sasrec = tmp_path / "sasrec" / "wide"
    sasrec.mkdir(parents=True)
    for part, ndcg in (("validation", 0.05), ("test", 0.04)):
        scores = {"recall@5": 0.05, "recall@10": 0.08, "ndcg@5": 0.03, "ndcg@10": ndcg}
        (sasrec / f"{part}.json").write_text(json.dumps(scores))
    content = study(tmp_path)
    assert content["chosen_on_validation"] == {"shipped": "shipped-base", "list-shipped": "list-shipped-2"}
    assert content["validation"]["shipped-small"]["val/ndcg@10"] == 0.02
    assert content["test"]["shipped"]["arms"]["beam"]["ndcg@10"] == 0.0384
    # Only the test that had the device to itself has times.
    assert "seconds" not in content["test"]["shipped"]["arms"]["beam"]
    assert content["test"]["cost"]["arms"]["beam"]["latency_ms"]["p50"] == 7.5
    text = markdown(content)
    assert "| shipped-base | 2 | 0.0600 | 0.0300 |" in text
    assert "| shipped | beam | 8 | 0.1000 | 0.2000 | 0.0500 | 0.0384 |" in text
    assert "| beam | 49.0 | 7.5 |" in text
    assert "| wide | 0.0500 | 0.0500 | 0.0800 | 0.0300 | 0.0400 |" in text


def test_a_study_without_fits_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no validated fit"):
        study(tmp_path)
