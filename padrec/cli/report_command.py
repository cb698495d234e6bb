"""The command that puts reports side by side; it needs no trainer, model or data."""

from pathlib import Path

from padrec.catalog.whole_output import check_place
from padrec.cli.one_message_parser import OneMessageParser
from padrec.evaluation.leaderboard import COLUMNS, Leaderboard, read_reports


def report(arguments: list[str]) -> None:
    """Run `padrec report` with these arguments."""
    output = _parser().parse_args(arguments).output
    if output is not None:
        check_place(output)
    board = leaderboard(arguments)
    if output is not None:
        board.write(output)
    print(board.markdown_table())


def leaderboard(arguments: list[str]) -> Leaderboard:
    """Return what `padrec report` writes with these arguments."""
    settings = _parser().parse_args(arguments)
    return Leaderboard(read_reports(settings.folders), settings.columns, settings.arms, settings.seeds)


def _parser() -> OneMessageParser:
    about = "Put any number of reports of `padrec test` into one table and one figure."
    parser = OneMessageParser(prog="padrec report", description=about)
    parser.add_argument("folders", nargs="+", type=Path, help="folders with a report.json, or such files")
    parser.add_argument("--output", type=Path, help="new folder for leaderboard.md, .html and .svg")
    parser.add_argument("--columns", nargs="+", default=list(COLUMNS), help="keys of an arm in report.json")
    parser.add_argument("--arms", nargs="+", help="arms to show, in this order; all by default")
    parser.add_argument(
        "--seeds",
        action="store_true",
        help="combine seeds: arms of the same name in reports with equal settings, and arms <name>-0, <name>-1, …",
    )
    return parser
