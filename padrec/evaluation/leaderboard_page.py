"""The leaderboard as one HTML file that needs no other."""

from collections.abc import Sequence
from html import escape
from string import Template

_Table = tuple[Sequence[str], Sequence[Sequence[str]]]

_PAGE = Template("""\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Leaderboard</title>
<style>
  :root { color-scheme: light; }
  body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 90rem; margin: 2rem auto;
         padding: 0 1rem; }
  .wide { overflow-x: auto; }
  table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
  th, td { padding: .35rem .8rem; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap; }
  thead th { border-bottom: 2px solid #888; vertical-align: bottom; }
  .board th { cursor: pointer; }
  .text { text-align: left; }
  .settings th, .settings td { text-align: left; vertical-align: top; }
  .settings td { white-space: normal; overflow-wrap: anywhere; min-width: 12rem; }
  svg { max-width: 100%; height: auto; }
</style>
<h1>Leaderboard</h1>
<div class="wide">$table</div>
<p>Click a heading to sort by it.</p>
$figure
<p>$how_to_read</p>
<h2>Reports</h2>
<div class="wide">$settings</div>
<script>
  const number = cell => parseFloat(cell.textContent.replaceAll(",", ""));
  document.querySelectorAll(".board thead th").forEach((heading, column) => heading.addEventListener("click", () => {
    const body = document.querySelector(".board tbody"), falling = heading.dataset.order !== "falling";
    const order = (a, b) => {
      const [x, y] = [a.cells[column], b.cells[column]], difference = number(x) - number(y);
      return isNaN(difference) ? x.textContent.localeCompare(y.textContent) : difference;
    };
    const rows = [...body.rows].sort(order);
    body.append(...(falling ? rows.reverse() : rows));
    heading.dataset.order = falling ? "falling" : "rising";
  }));
</script>
</html>
""")


def leaderboard_page(table: _Table, figure: str, how_to_read: str, settings: _Table) -> str:
    """Return the page: header and rows of the arms and of the reports' settings, all in plain text; a figure in SVG."""
    return _PAGE.substitute(
        table=_table("board", table),
        figure=figure[figure.index("<svg") :],
        how_to_read=escape(how_to_read),
        settings=_table("settings", settings),
    )


def _table(kind: str, table: _Table) -> str:
    header, rows = table
    sides = ["" if cell[:1].isdigit() or cell[:1] in "–-" else ' class="text"' for cell in rows[0]]
    body = "".join(_row("td", row, sides) for row in rows)
    return f'<table class="{kind}"><thead>{_row("th", header, sides)}</thead><tbody>{body}</tbody></table>'


def _row(tag: str, cells: Sequence[str], sides: Sequence[str]) -> str:
    """Cells, each with the attribute of its column."""
    written = (f"<{tag}{side}>{escape(cell)}</{tag}>" for cell, side in zip(cells, sides, strict=True))
    return f"<tr>{''.join(written)}</tr>"
