"""The documentation is kept true: its examples run, its links lead somewhere, its commands can be parsed."""

import contextlib
import io
import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from docs.tools.tables import pages, with_tables
from docs.tools.versions import publish
from padrec import Recommender
from padrec.cli import main
from padrec.data import SemanticIDDataModule, SyntheticReader
from tests.tiny_training import quiet_trainer, tiny_backbone, tiny_draft, tiny_recommender

_REPOSITORY = Path(__file__).parents[1]
_README = _REPOSITORY / "README.md"
_RESULTS = _REPOSITORY / "docs" / "results"
_POLICIES = [_REPOSITORY / "CONTRIBUTING.md", _REPOSITORY / "SECURITY.md"]
_PAGES = [_README, *sorted(p for p in (_REPOSITORY / "docs").rglob("*.md") if _RESULTS not in p.parents)]
# Reports below docs/results/ are written by the program, not by hand.
_NOTES = [_RESULTS / "README.md", *sorted(_RESULTS.rglob("notes.md"))]
_RUNNABLE = re.compile(r"^<!-- run -->\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"^padrec (?:prepare|fit|validate|test|predict|pool) .*$", re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_QUICKSTART_FILE = re.compile(r'"(runs/quickstart/(\w+)/[^"]+)"')


def page_name(page: Path) -> str:
    return str(page.relative_to(_REPOSITORY))


def run_examples(page: Path) -> dict[str, Any]:
    """Run the page's runnable blocks one after the other, as one program; returns its variables."""
    text = page.read_text(encoding="utf-8")
    variables: dict[str, Any] = {"__name__": page.stem}
    for block in _RUNNABLE.finditer(text):
        line = text.count("\n", 0, block.start(1))
        exec(compile("\n" * line + block[1], str(page), "exec"), variables)
    return variables


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands() -> list[str]:
    text = "\n".join(page.read_text(encoding="utf-8") for page in [*_PAGES, *_NOTES])
    return list(dict.fromkeys(_COMMAND.findall(text)))


def quickstart_data() -> SemanticIDDataModule:
    settings = yaml.safe_load((_REPOSITORY / "experiments/quickstart/data.yaml").read_text(encoding="utf-8"))
    return SemanticIDDataModule(SyntheticReader(**settings["init_args"]["reader"]["init_args"]))


def test_the_readme_recommends_to_new_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a tiny target and draft in the place of those that the quickstart trains."""
    monkeypatch.chdir(tmp_path)
    files = {stage: path for path, stage in _QUICKSTART_FILE.findall(_README.read_text(encoding="utf-8"))}
    evaluated = (_REPOSITORY / "experiments/quickstart/evaluate.yaml").read_text(encoding="utf-8")
    assert set(files) == {"target", "padrec"}
    assert all(path in evaluated for path in files.values())
    data = quickstart_data()
    target = tiny_recommender(data, backbone=tiny_backbone(initializer_range=0.3, max_position_embeddings=512))
    trainer = quiet_trainer(tmp_path, max_steps=1, limit_val_batches=0)
    trainer.fit(target, datamodule=data)
    trainer.save_checkpoint(files["target"])
    draft = tiny_draft(data, files["target"])
    trainer = quiet_trainer(tmp_path, max_steps=1, limit_val_batches=0)
    trainer.fit(draft, datamodule=data)
    trainer.save_checkpoint(files["padrec"])

    capsys.readouterr()
    found = run_examples(_README)

    printed = capsys.readouterr().out.splitlines()
    recommender = found["recommender"]
    assert torch.equal(recommender.catalog.codes, data.catalog.codes)
    plain = Recommender.load(files["target"])
    histories = [["item-17", "item-203", "item-44"], ["item-5"]]
    lists = plain.recommend(histories, k=10, exclude="history")
    assert [line for line in printed if line.startswith("[")] == [str([item.title for item in row]) for row in lists]
    assert not any({item.key for item in row} & set(history) for row, history in zip(lists, histories, strict=True))


def test_the_first_python_call_of_the_readme_has_five_lines() -> None:
    first = _RUNNABLE.search(_README.read_text(encoding="utf-8"))
    assert first is not None
    assert len([line for line in first[1].splitlines() if line]) == 5


@pytest.mark.parametrize("page", [page for page in _PAGES[1:] if _RUNNABLE.search(page.read_text())], ids=page_name)
def test_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_examples(page)


@pytest.mark.parametrize("page", [*_PAGES, *_NOTES, *_POLICIES], ids=page_name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in _LINK.findall(page.read_text(encoding="utf-8")):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), link
        assert not anchor or anchor in anchors(found), link


def linked_pages(page: Path) -> set[Path]:
    links = _LINK.findall(page.read_text(encoding="utf-8"))
    return {(page.parent / link.partition("#")[0]).resolve() for link in links}


def test_every_page_is_in_the_table_of_contents() -> None:
    index, results = _REPOSITORY / "docs" / "index.md", _RESULTS / "README.md"
    assert {*_PAGES[1:], results} - {index} <= linked_pages(index)
    assert set(_NOTES) - {results} <= linked_pages(results)


@pytest.mark.parametrize("page", [page for page in pages() if "<!-- padrec report" in page.read_text()], ids=page_name)
def test_result_tables_are_those_of_the_reports(page: Path) -> None:
    """If not: `python docs/tools/tables.py`."""
    text = page.read_text(encoding="utf-8")
    assert with_tables(text) == text


def test_errors_are_quoted_as_the_code_words_them() -> None:
    """Literals that Python joins are joined here too, and what is filled in is `…`."""
    code = "\n".join(file.read_text(encoding="utf-8") for file in (_REPOSITORY / "padrec").rglob("*.py"))
    worded = re.sub(r"\{[^{}]*\}", "…", re.sub(r'"\s+f?"', "", code))
    page = (_REPOSITORY / "docs" / "reference" / "errors.md").read_text(encoding="utf-8")
    quoted = re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)
    assert quoted
    assert [message for message in quoted if message not in worded] == []


@pytest.mark.parametrize("command", commands())
def test_commands_can_be_parsed(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(_REPOSITORY)
    program, *arguments = shlex.split(command)
    monkeypatch.setattr(sys, "argv", [program])  # the parser warns of arguments from two places
    with pytest.raises(SystemExit) as end, contextlib.redirect_stdout(io.StringIO()) as printed:
        main([*arguments, "--print_config"])
    assert end.value.code in (0, None)
    assert "class_path: padrec." in printed.getvalue()


def test_sites_of_releases_stand_side_by_side(tmp_path: Path) -> None:
    site, folder = tmp_path / "site", tmp_path / "public"
    site.mkdir()
    for version in ("0.9.0", "0.10.0", "0.2.0"):
        (site / "index.html").write_text(version)
        publish(site, folder, version)
    menu = json.loads((folder / "versions.json").read_text())
    assert [(entry["version"], entry["aliases"]) for entry in menu] == [
        ("0.10.0", ["latest"]),
        ("0.9.0", []),
        ("0.2.0", []),
    ]
    assert "url=0.10.0/index.html" in (folder / "index.html").read_text()
    assert [(folder / entry["version"] / "index.html").read_text() for entry in menu] == ["0.10.0", "0.9.0", "0.2.0"]
