import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch

import padrec
from padrec.catalog import InputError
from padrec.evaluation.report import Report, check_writable, escape_markdown, software_versions
from tests.evaluation.toy_comparison import toy_metrics, toy_report

SETTINGS = ["dataset", "users", "list_length", "batch_size", "temperature", "constraint", "precision", "device"]
ORIGIN = ["versions", "seed", "command"]
COST = [
    "seconds",
    "prefill_seconds",
    "recording_seconds",
    "tokens",
    "tokens_per_second",
    "lists_per_second",
    "latency_ms",
]
DRAFTING = ["target_passes", "draft_passes", "acceptance_length", "accepted_per_pass"]
PASSES = ["accepted_steps", "accepted_share", "one_pass_users", "users_by_target_passes"]
RATES = ["acceptance_by_slot", "acceptance_by_depth"]
QUALITY = ["ndcg@5", "ndcg@10", "recall@5", "recall@10", "quality_ci95", "valid_items", "distinct_items"]
COMPARISON = ["speedup", "speedup_ci95", "speedup_median", "identical_lists"]


def read_strictly(path: Path) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    return content


def tables(report: Report) -> list[dict[str, dict[str, str]]]:
    """The cells of each table by arm and column."""
    found = []
    for part in report.markdown().split("\n\n"):
        if part.startswith("|"):
            header, rule, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines()]
            assert {len(row) for row in (rule, *rows)} == {len(header)}
            found.append({row[0]: dict(zip(header, row, strict=True)) for row in rows})
    return found


def test_the_json_file_holds_the_designed_keys(tmp_path: Path) -> None:
    toy_report().write(tmp_path / "new" / "folder")
    found = read_strictly(tmp_path / "new" / "folder" / "report.json")
    assert list(found) == [*SETTINGS, *ORIGIN, "reference", "arms"]
    assert list(found["arms"]) == ["autoregressive", "padrec", "transformers"]
    for metrics in found["arms"].values():
        assert list(metrics) == [*COST, *DRAFTING, *PASSES, *RATES, *QUALITY, *COMPARISON]
        assert list(metrics["latency_ms"]) == ["p50", "p95", "p99"]
    assert found["arms"]["padrec"]["acceptance_by_slot"] == [0.5, 0.75, 1.0, 1.0, None]
    assert found["constraint"] == "catalog"


def test_numbers_that_are_not_finite_become_null_and_a_dash(tmp_path: Path) -> None:
    metrics = toy_metrics(2.0, 3) | {"ndcg@10": math.nan, "speedup": math.inf, "speedup_ci95": (math.nan, 2.0)}
    report = toy_report(arms={"a": metrics}, settings={"constraint": None})
    report.write(tmp_path)
    found = read_strictly(tmp_path / "report.json")
    assert found["constraint"] is None
    assert [found["arms"]["a"][key] for key in ("ndcg@10", "speedup", "speedup_ci95")] == [None, None, [None, 2.0]]
    assert "| a | – | 2.00 |" in report.markdown()
    assert "test/a/ndcg@10" not in report.scalars()


def test_the_markdown_tables_have_one_full_row_per_arm() -> None:
    main, further, passes = tables(toy_report())
    assert list(main) == list(further) == list(passes) == ["autoregressive", "padrec", "transformers"]
    assert main["padrec"] == {
        "arm": "padrec",
        "speedup (95 %)": "2.50 (2.40 – 2.65)",
        "median": "2.50",
        "τ": "4.90",
        "NDCG@10": "0.0412",
        "identical": "100%",
        "p50 ms": "40.0",
    }
    assert further["padrec"]["tokens/s"] == "975"
    assert further["padrec"]["p95 ms"] == "52.0"
    assert further["padrec"]["recording (s)"] == "12.5"
    assert list(passes["padrec"].values())[2:6] == ["0.0%", "3.90", "2.50", "62.5%"]
    assert list(passes["padrec"].items())[6:] == [
        ("NDCG@5", "0.0300"),
        ("NDCG@10", "0.0412"),
        ("recall@5", "0.0500"),
        ("recall@10", "0.0800"),
    ]


def test_the_main_table_shows_ndcg_at_the_largest_cutoff() -> None:
    metrics = toy_metrics(1.0, 0) | {"ndcg@20": 0.05, "recall@20": 0.1}
    main, _, passes = tables(toy_report(arms={"a": metrics}))
    assert "NDCG@10" not in main["a"]
    assert (main["a"]["NDCG@20"], passes["a"]["recall@20"]) == ("0.0500", "0.1000")


def test_the_summary_is_aligned_and_fits_a_terminal() -> None:
    header, *rows = toy_report().summary().splitlines()
    assert header.split() == ["arm", "speedup", "(95", "%)", "median", "τ", "NDCG@10", "identical", "p50", "ms"]
    assert [row.split()[0] for row in rows] == ["autoregressive", "padrec", "transformers"]
    assert {len(row) for row in rows} == {len(header)}
    assert len(header) <= 80


def test_speedups_over_further_references_have_a_column_each() -> None:
    assert "| over " not in toy_report().markdown()
    over = {
        "speedup_over_transformers": 7.0,
        "speedup_over_transformers_ci95": [6.5, 7.25],
        "speedup_over_transformers_median": 7.0,
        "speedup_over_a*b": 3.0,
        "speedup_over_a*b_ci95": [2.5, 3.25],
    }
    _, further, _ = tables(toy_report(arms={"a": toy_metrics(1.0, 0), "b": toy_metrics(2.0, 3) | over}))
    for name, cell in (("over transformers", "7.00 (6.50 – 7.25)"), (r"over a\*b", "3.00 (2.50 – 3.25)")):
        assert [further[arm][name] for arm in "ab"] == ["–", cell]


def test_a_ratio_far_from_the_median_gets_a_warning() -> None:
    parted = toy_metrics(1.42, 3) | {"speedup_median": 2.0}
    report = toy_report(arms={"a": toy_metrics(1.0, 0), "busy": parted})
    warning = "busy: the ratio of totals, 1.42, is far from the median, 2.00"
    assert warning in report.markdown()
    assert warning in report.summary()
    assert "far from the median" not in toy_report().markdown()


def test_what_an_arm_chose_stands_below_the_table() -> None:
    chosen = {"lists_by": {"a tree": 1200, "no speculation": 3}}
    report = toy_report(arms={"a": toy_metrics(1.0, 0), "b|": toy_metrics(2.0, 3) | chosen})
    assert "\n\nb\\| wrote 1,200 lists by a tree, 3 lists by no speculation.\n\n" in report.markdown()
    assert report.scalars()["test/b|/lists_by/a tree"] == 1200


def test_what_an_arm_draws_on_and_whether_it_is_lossless_stands_below_the_table() -> None:
    pool = {"texts": 1200, "tokens": 60_000, "groups": 8, "online": False, "own_answers": False}
    drawn = {
        "lossless": False,
        "pool": pool | {"grouped_by": "Titles"},
        "accepted_by": {"retrieval": 3000, "forced": 20},
    }
    own = {"lossless": True, "pool": pool | {"groups": 1, "online": True, "own_answers": True}}
    arms = {
        "a": toy_metrics(1.0, 0) | {"lossless": True},
        "b": toy_metrics(2.0, 3) | drawn,
        "c": toy_metrics(2.0, 3) | own,
    }
    report = toy_report(arms=arms)
    for remark in (
        "b is not lossless: it may write other lists or texts than the target.",
        "b retrieves from 1,200 earlier texts (60,000 tokens) in 8 groups by Titles, none of tested users.",
        "(60,000 tokens) in 1 group, finished ones among them, earlier answers to the tested users included.",
        "b accepted 3,000 tokens of retrieval, 20 tokens of forced.",
    ):
        assert report.markdown().count(remark) == 1
    assert "a is not lossless" not in report.markdown()
    assert report.scalars()["test/b/accepted_by/retrieval"] == 3000


def test_a_single_list_that_differs_is_not_rounded_away() -> None:
    metrics = toy_metrics(2.0, 3) | {"identical_lists": 1 - 1e-6}
    assert "99.99%" in toy_report(arms={"a": metrics}).markdown()


def test_names_cannot_break_the_table() -> None:
    report = toy_report(arms={"a|b\nc": toy_metrics(2.0, 3)})
    header, _, row, *_ = [line for line in report.markdown().splitlines() if line.startswith("|")]
    assert row.replace("\\|", "").count("|") == header.count("|")
    assert escape_markdown("<b>*x*</b> `y` [z] & \\") == r"&lt;b>\*x\*&lt;/b> \`y\` \[z\] &amp; \\"


@pytest.mark.parametrize("name", ["report.json", "report.md"])
def test_an_existing_report_is_refused_and_kept(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("old")
    with pytest.raises(InputError, match=name):
        check_writable(tmp_path)
    with pytest.raises(InputError, match=name):
        toy_report().write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "old"


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"report\.json: cannot be written \(Not a directory\)"):
        check_writable(tmp_path / "file" / "folder")


def test_a_missing_folder_is_fine_and_not_made_by_the_check(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "folder")
    assert list(tmp_path.iterdir()) == []


def test_a_report_that_cannot_be_finished_leaves_no_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        toy_report().write(tmp_path)
    check_writable(tmp_path)
    monkeypatch.undo()
    toy_report().write(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json", "report.md"]


def test_scalars_name_arm_and_metric() -> None:
    scalars = toy_report().scalars()
    assert scalars["test/padrec/speedup"] == 2.5
    assert scalars["test/padrec/latency_ms/p95"] == 52.0
    assert not any("acceptance_by" in tag or "ci95" in tag for tag in scalars)


def test_versions_say_what_ran() -> None:
    assert set(software_versions()) >= {"padrec", "torch", "lightning", "transformers", "torchmetrics", "python"}
    assert all(software_versions().values())


def test_versions_are_those_of_what_runs() -> None:
    versions = software_versions()
    assert (versions["padrec"], versions["torch"]) == (padrec.__version__, torch.__version__)
