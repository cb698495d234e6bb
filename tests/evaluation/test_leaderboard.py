import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from padrec.catalog import InputError
from padrec.cli import main
from padrec.evaluation.leaderboard import Leaderboard, read_reports
from padrec.evaluation.report import Report
from tests.evaluation.test_figures import bars, fits
from tests.evaluation.toy_comparison import toy_metrics, toy_report


def with_seeds(*speedups: float, seed: int = 0) -> Report:
    drafts = {f"hass-{number}": toy_metrics(speedup, 3) for number, speedup in enumerate(speedups)}
    return toy_report(arms={"autoregressive": toy_metrics(1.0, 0), "chain-5": toy_metrics(1.5, 5)} | drafts, seed=seed)


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Two evaluations, as `padrec test` leaves them."""
    places = [tmp_path / "runs" / name / "evaluate" for name in ("beauty", "office")]
    toy_report().write(places[0])
    toy_report(dataset="<office>", users=7).write(places[1])
    return places


def table(board: Leaderboard) -> list[list[str]]:
    header, _, *rows = board.markdown_table().splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in (header, *rows)]


def test_a_report_reads_what_it_wrote(tmp_path: Path) -> None:
    toy_report().write(tmp_path)
    found = Report.read(tmp_path)
    assert found.markdown() == toy_report().markdown()
    assert Report.read(tmp_path / "report.json") == found


def test_reports_are_named_by_what_their_paths_do_not_share(folders: list[Path]) -> None:
    assert list(read_reports(folders)) == ["beauty/evaluate", "office/evaluate"]
    assert list(read_reports(folders[:1])) == ["evaluate"]


def test_every_arm_of_every_report_has_a_row(folders: list[Path]) -> None:
    header, first, *others = table(Leaderboard(read_reports(folders), ["speedup", "acceptance_length"]))
    assert header == ["report", "arm", "speedup (95 %)", "τ"]
    assert first == ["beauty/evaluate", "autoregressive", "1.00", "1.00"]
    assert len(others) == 5


def test_quality_has_its_interval(folders: list[Path]) -> None:
    header, first, *_ = table(Leaderboard(read_reports(folders[:1]), ["ndcg@10"]))
    assert (header, first) == (["arm", "NDCG@10"], ["autoregressive", "0.0412 (0.0200 – 0.0900)"])


def test_the_name_of_a_single_report_is_left_out(folders: list[Path]) -> None:
    header, *rows = table(Leaderboard(read_reports(folders[:1]), ["speedup"], arms=["transformers", "padrec"]))
    assert header == ["arm", "speedup (95 %)"]
    assert [row[0] for row in rows] == ["transformers", "padrec"]


def test_columns_with_the_same_heading_stand_side_by_side() -> None:
    texts = {name: value for name, value in toy_metrics(2.0, 3).items() if name != "identical_lists"}
    arms = {"lists": toy_metrics(1.0, 0), "texts": texts | {"identical_texts": 0.5}}
    board = Leaderboard({"a": toy_report(arms=arms)}, ["identical_lists", "identical_texts"])
    assert table(board) == [["arm", "identical", "identical"], ["lists", "100%", "–"], ["texts", "–", "50.00%"]]


def test_numbered_arms_of_a_report_are_seeds_where_asked() -> None:
    board = Leaderboard({"a": with_seeds(2.0, 3.0, 4.0)}, ["speedup"], seeds=True)
    assert table(board)[1:] == [
        ["autoregressive", "1", "1.00"],
        ["chain-5", "1", "1.50 (1.40 – 1.65)"],
        ["hass", "3", "3.00 (0.52 – 5.48)"],
    ]
    assert len(Leaderboard({"a": with_seeds(2.0, 3.0)}).rows) == 4


def test_reports_of_equal_settings_are_seeds_where_asked() -> None:
    reports = {"a": with_seeds(2.0, seed=0), "b": with_seeds(4.0, seed=1), "c": toy_report(users=9)}
    board = Leaderboard(reports, seeds=True)
    found = {(row.report, row.arm): (row.seeds, row.numbers.values["speedup"]) for row in board.rows}
    assert found[("a, b", "hass-0")] == (2, 3.0)
    assert found[("c", "padrec")] == (1, 2.5)


def test_the_figure_has_a_bar_for_every_row_and_a_panel_for_every_report(folders: list[Path]) -> None:
    board = Leaderboard(read_reports(folders))
    figure = board.figure()
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["beauty/evaluate", "office/evaluate"]
    assert [bar.get_width() for bar in bars(figure)] == [1.0, 2.5, 0.5]
    assert fits(figure)
    assert board.svg() == board.svg()


class Page(HTMLParser):
    """The texts of a page's cells, and which elements were left open."""

    void = frozenset({"meta", "path", "use", "rect", "line"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.cells: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.void:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.cells.append(data)


def test_the_command_writes_table_figure_and_page(
    folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "board"
    main(["report", *map(str, folders), "--output", str(output), "--columns", "speedup", "ndcg@10"])
    printed = capsys.readouterr().out
    markdown = (output / "leaderboard.md").read_text()
    assert printed.strip() in markdown
    assert "![Speedup" in markdown
    assert r"| command | padrec test --config a.yaml | padrec test --config a.yaml |" in markdown
    assert r"| dataset | toy | &lt;office> |" in markdown
    page = Page()
    text = (output / "leaderboard.html").read_text()
    page.feed(text)
    assert page.open == []
    assert page.cells[:4] == ["report", "arm", "speedup (95 %)", "NDCG@10"]
    assert not re.search(r'(?:src|href)="(?!#)', text)  # one file that needs no other
    assert (output / "leaderboard.svg").read_text().count("<svg") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("{tmp}/absent", "absent/report.json: no such file"),
        ("{tmp}/bad", "bad/report.json: no valid JSON"),
        ("{tmp}/other", "other/report.json: no arms with a speedup, expected a report.json of SpeculativeEvaluator"),
        ("{tmp}/old", "old/report.json: no batch_size, command"),
        ("{tmp}/words", "words/report.json: users is 'many', expected a number"),
        ("{tmp}/good {tmp}/good/report.json", "good: given twice"),
        ("{tmp}/good --columns nonsense", "columns: 'nonsense' is in no report, expected some of seconds, "),
        ("{tmp}/good --arms nobody", "arms: 'nobody' is in no report, expected some of autoregressive, "),
        ("{tmp}/good --output {tmp}/old", "old: there already"),
        ("", "folders"),
    ],
)
def test_wrong_input_gets_one_message(
    arguments: str, message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    toy_report().write(tmp_path / "good")
    old = {"dataset": "a", "arms": {"a": toy_metrics(1.0, 0)}}
    words = toy_report(users="many").to_dict()
    contents = {"bad": "{", "other": '{"test": {}}', "old": json.dumps(old), "words": json.dumps(words)}
    for name, content in contents.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text(content)
    with pytest.raises(SystemExit) as caught:
        main(["report", *arguments.format(tmp=tmp_path).split()])
    assert caught.value.code == 2
    assert message in capfd.readouterr().err


def test_no_report_is_no_leaderboard() -> None:
    with pytest.raises(InputError, match="no reports"):
        Leaderboard({})
