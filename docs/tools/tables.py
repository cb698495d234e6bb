"""Writes the manual's result tables, and the README's figure, from the committed reports:

    python docs/tools/tables.py

A table stands below a comment with its command, `<!-- padrec report FOLDER… -->`, run in the repository's root.
"""

import contextlib
import re
import shlex
from pathlib import Path

from padrec.cli.report_command import leaderboard
from padrec.evaluation.leaderboard import Leaderboard

REPOSITORY = Path(__file__).parents[2]
_FIGURE = "docs/results/speed/greedy --arms autoregressive forced eagle hass padrec"
_TABLE = re.compile(r"^<!-- padrec report (.+?) -->\n(?:\|.*\n)*", re.MULTILINE)


def pages() -> list[Path]:
    """The Markdown files that people write."""
    return [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]


def with_tables(text: str) -> str:
    """A page with its tables written anew."""

    def written(found: re.Match[str]) -> str:
        return f"<!-- padrec report {found[1]} -->\n{_leaderboard(found[1]).markdown_table()}\n"

    return _TABLE.sub(written, text)


def _leaderboard(arguments: str) -> Leaderboard:
    with contextlib.chdir(REPOSITORY):
        return leaderboard(shlex.split(arguments))


def main() -> None:
    (REPOSITORY / "docs" / "speedup.svg").write_text(_leaderboard(_FIGURE).svg(), encoding="utf-8")
    for page in pages():
        text = page.read_text(encoding="utf-8")
        if (changed := with_tables(text)) != text:
            page.write_text(changed, encoding="utf-8")
            print(page.relative_to(REPOSITORY))


if __name__ == "__main__":
    main()
