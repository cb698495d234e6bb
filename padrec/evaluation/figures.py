"""Figures of a comparison, drawn without pyplot: no display and no global state."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, PercentFormatter
from torch import Tensor

from padrec.evaluation.arm_metrics import ArmResult, quality_metric
from padrec.evaluation.arm_numbers import ArmNumbers

# The colour-blind-safe palette of Okabe and Ito, with black for the first arm and without yellow, too pale for lines.
_COLOURS = ("#333333", "#E69F00", "#0072B2", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")
_MARKERS = ("o", "s", "D", "^", "v", "P", "X", "<", ">")
_LINES = ("-", "--", "-.", ":")
# TensorBoard shows figures about 350 pixels wide: small figures of many dots keep their text readable there.
_WIDTH = 5.0  # inches
_DPI = 170
_GRID = "#DDDDDD"
_UNREACHED = "#E5E5E5"


@dataclass(frozen=True)
class ArmStyle:
    """The look of an arm in all figures of a comparison: hexadecimal colour, marker, line style.

    Bars are hatched once the colours repeat.
    """

    colour: str
    marker: str
    line: str
    hatch: str


def arm_styles(names: Sequence[str]) -> dict[str, ArmStyle]:
    """Return a style for every arm by name, which depends on the order of the arms."""

    def style(number: int) -> ArmStyle:
        colour, marker = _COLOURS[number % len(_COLOURS)], _MARKERS[number % len(_MARKERS)]
        return ArmStyle(colour, marker, _LINES[number % len(_LINES)], "//" * (number // len(_COLOURS)))

    return {name: style(number) for number, name in enumerate(names)}


def comparison_figures(results: Sequence[ArmResult]) -> dict[str, Figure]:
    """Return all figures of a comparison of at least one arm, by name.

    The names are `acceptance/<arm>` for each arm with a draft, `acceptance_by_depth` and `accepted_lengths` if there is
    one, `accepted_by_source` if an arm's draft has several sources, `speedup`, `latency`, `users_by_target_passes` and,
    for lists, `quality_by_cutoff` and `quality_against_speed`.
    """
    drafting = [result for result in results if result.max_depth > 0]
    figures = {f"acceptance/{result.name}": acceptance_by_slot_and_depth(result) for result in drafting}
    if drafting:
        figures["acceptance_by_depth"] = acceptance_by_depth(results)
        figures["accepted_lengths"] = accepted_lengths(results)
    if any("accepted_by" in result.metrics for result in results):
        figures["accepted_by_source"] = accepted_by_source(results)
    figures |= {
        "speedup": speedup_with_interval(results),
        "latency": latency_distribution(results),
        "users_by_target_passes": users_by_target_passes(results),
    }
    if quality_metric(results[0].metrics):
        figures |= {
            "quality_by_cutoff": quality_by_cutoff(results),
            "quality_against_speed": quality_against_speed(results),
        }
    return figures


def write_figures(figures: Mapping[str, Figure], folder: Path) -> dict[str, Path]:
    """Write each figure as `<folder>/<name>.png` and return the paths by name; folders are made if missing."""
    paths = {name: folder / f"{name}.png" for name in figures}
    for name, figure in figures.items():
        paths[name].parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(paths[name])
    return paths


def acceptance_by_slot_and_depth(result: ArmResult) -> Figure:
    """Heat map of the share of tokens reached by verification that the draft had proposed.

    Rows are slots, columns draft depths. Rows of the separator and of other tokens appear only if such a token was
    reached; a cell is grey if no token was.
    """
    names = _slot_names(result.acceptance.shape[0])
    rows = [row for row, name in enumerate(names) if len(name) == 1 or not result.acceptance[row].isnan().all()]
    shares = result.acceptance[rows]
    n_rows, n_columns = shares.shape
    title = f"{result.name}: accepted draft tokens (%)"
    width = max(1.2 + 0.42 * max(n_columns, 4), 1.0 + 0.1 * len(title), _WIDTH)
    figure, axes = _axes(title, "draft depth (grey: none reached)", "slot of the token", width, 1.5 + 0.4 * n_rows)
    axes.set_facecolor(_UNREACHED)
    axes.imshow(shares.numpy(), cmap="cividis", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(n_columns), [str(depth + 1) for depth in range(n_columns)])
    axes.set_yticks(range(n_rows), [names[row] for row in rows])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for row, column in (~shares.isnan()).nonzero().tolist():
        share = float(shares[row, column])
        colour = "white" if share < 0.55 else "black"
        axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", color=colour, fontsize=9)
    return figure


def acceptance_by_depth(results: Sequence[ArmResult]) -> Figure:
    """Curves of the share of verified tokens that the draft had proposed, by draft depth, for arms with a draft."""
    figure, axes = _axes("Accepted draft tokens by depth", "draft depth (tokens)", "share of verified tokens")
    styles = arm_styles([result.name for result in results])
    drafting = [result for result in results if result.max_depth > 0]
    for result in drafting:
        shares = result.metrics["acceptance_by_depth"]
        _curve(axes, dict(enumerate(shares, start=1)), styles[result.name], result.name)
    axes.set_ylim(0, 1.05)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    _legend(figure)
    return figure


def users_by_target_passes(results: Sequence[ArmResult]) -> Figure:
    """Curves of the share of users, or prompts of text, that needed that many target passes after the prefill."""
    figure, axes = _axes("Target passes", "target passes after the prefill", _share(results))
    styles = arm_styles([result.name for result in results])
    for result in results:
        users = result.metrics["users_by_target_passes"]
        shares = {passes: count / sum(users) for passes, count in enumerate(users) if count > 0}
        _curve(axes, shares, styles[result.name], result.name)
    axes.set_ylim(0, 1.05)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    _legend(figure)
    return figure


def quality_by_cutoff(results: Sequence[ArmResult]) -> Figure:
    """Curves of recall@K, solid, and NDCG@K, dotted, over the cutoffs K."""
    figure, axes = _axes("Quality by cutoff", "K, first items of a list", "recall (solid), NDCG (dotted)")
    styles = arm_styles([result.name for result in results])
    for result in results:
        for metric, line in (("recall", "-"), ("ndcg", ":")):
            names = {name: name.partition("@")[2] for name in result.metrics if name.startswith(f"{metric}@")}
            values = {int(cutoff): result.metrics[name] for name, cutoff in names.items()}
            label = result.name if metric == "recall" else None
            _curve(axes, values, replace(styles[result.name], line=line), label)
    axes.set_ylim(bottom=0)
    _legend(figure)
    return figure


def _curve(axes: Axes, values: Mapping[int, float | None], style: ArmStyle, label: str | None) -> None:
    """A line through the values at whole numbers; it has gaps where there are none."""
    look: dict[str, Any] = {"color": style.colour, "linestyle": style.line, "marker": style.marker, "linewidth": 2}
    axes.plot(list(values), [math.nan if value is None else value for value in values.values()], label=label, **look)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(color=_GRID, linewidth=0.8)


def accepted_lengths(results: Sequence[ArmResult]) -> Figure:
    """Bars of the share of rounds by the number of accepted draft tokens, for arms with a draft."""
    styles = arm_styles([result.name for result in results])
    drafting = [result for result in results if result.max_depth > 0]
    deepest = max((result.max_depth for result in drafting), default=0)
    figure, axes = _axes("Draft tokens accepted per round", "accepted draft tokens", "share of rounds")
    step = 0.84 / max(len(drafting), 1)  # in units of the distance between two numbers
    for number, result in enumerate(drafting):
        shares = result.accepted_lengths.double() / result.accepted_lengths.sum()
        places = torch.arange(len(shares)) + (number - (len(drafting) - 1) / 2) * step
        style = styles[result.name]
        bars = axes.bar(places.numpy(), shares.numpy(), 0.92 * step, color=style.colour, label=result.name)
        _hatch(bars, style)
    axes.set_xticks(range(deepest + 1))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    _legend(figure)
    return figure


def accepted_by_source(results: Sequence[ArmResult]) -> Figure:
    """Stacked bars of the share of accepted draft tokens by what proposed them, for arms with several sources."""
    counts = {result.name: found for result in results if (found := result.metrics.get("accepted_by"))}
    sources = list(dict.fromkeys(source for found in counts.values() for source in found))
    longest = max(map(len, counts))
    title, x = "Accepted draft tokens by source", "share of accepted draft tokens"
    figure, axes = _axes(title, x, "", _WIDTH + 0.075 * longest, 1.2 + 0.4 * len(counts))
    ends = torch.zeros(len(counts))
    for source, style in arm_styles(sources).items():
        shares = torch.tensor([found.get(source, 0) / max(1, sum(found.values())) for found in counts.values()])
        look: dict[str, Any] = {"left": ends.numpy(), "height": 0.62, "color": style.colour, "label": source}
        _hatch(axes.barh(range(len(counts)), shares.numpy(), **look), style)
        ends = ends + shares
    axes.set_yticks(range(len(counts)), list(counts))
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    _legend(figure)
    return figure


def speedup_with_interval(results: Sequence[ArmResult]) -> Figure:
    """Bars of the arms' speedups with their 95 % intervals, and a line at the reference arm's speed."""
    return speedup_panels(
        {"Speedup with 95 % interval": {result.name: ArmNumbers.of(result.metrics) for result in results}}
    )


def speedup_panels(panels: Mapping[str, Mapping[str, ArmNumbers]]) -> Figure:
    """Bars of speedups as in `speedup_with_interval`, by title and name; an arm looks the same in all panels."""
    styles = arm_styles(list(dict.fromkeys(name for arms in panels.values() for name in arms)))
    heights = [0.4 + 0.4 * len(arms) for arms in panels.values()]
    longest = max(map(len, styles))
    figure = Figure(figsize=(_WIDTH + 0.075 * longest, 0.8 + sum(heights)), dpi=_DPI, layout=_layout())
    grid = figure.subplots(len(panels), squeeze=False, sharex=True, height_ratios=heights)
    for axes, (title, arms) in zip(grid.flat, panels.items(), strict=True):
        _prepare(axes, title)
        _speedup_bars(axes, arms, styles)
    grid.flat[-1].set_xlabel("speedup over the reference arm (×)")
    return figure


def _speedup_bars(axes: Axes, arms: Mapping[str, ArmNumbers], styles: Mapping[str, ArmStyle]) -> None:
    longest = axes.get_xlim()[1] / 1.12
    for place, (name, numbers) in enumerate(arms.items()):
        speedup = numbers.values.get("speedup", 0.0)
        low, high = numbers.intervals.get("speedup", (speedup, speedup))
        end = max(speedup, high)
        longest = max(longest, end)
        _hatch(axes.barh(place, speedup, height=0.62, color=styles[name].colour), styles[name])
        if high > low:
            sides = [[max(speedup - low, 0)], [max(high - speedup, 0)]]
            rim = [withStroke(linewidth=3.5, foreground="white")]  # visible on dark bars
            axes.errorbar(speedup, place, xerr=sides, color="black", capsize=4, path_effects=rim, zorder=3)
        axes.annotate(f"{speedup:.2f}", (end, place), (6, 0), textcoords="offset points", va="center", fontsize=10)
    axes.axvline(1, color="black", linestyle="--", linewidth=1.0, zorder=2.5)
    axes.set_yticks(range(len(arms)), list(arms))
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(0, 1.12 * longest)
    axes.grid(axis="x", color=_GRID, linewidth=0.8)


def latency_distribution(results: Sequence[ArmResult]) -> Figure:
    """Curves of the share of users, or prompts of text, whose output was ready after a time."""
    styles = arm_styles([result.name for result in results])
    figure, axes = _axes("Time until the output is ready", "latency (ms, logarithmic)", _share(results))
    for result in results:
        style = styles[result.name]
        axes.ecdf(result.latencies_ms.numpy(), color=style.colour, linestyle=style.line, linewidth=2, label=result.name)
    _logarithmic(axes, torch.cat([result.latencies_ms for result in results]))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.grid(color=_GRID, linewidth=0.8)
    _legend(figure)
    return figure


def quality_against_speed(results: Sequence[ArmResult]) -> Figure:
    """NDCG of every arm over its lists per second, with both axes from 0."""
    styles, quality = arm_styles([result.name for result in results]), quality_metric(results[0].metrics)
    name = quality.replace("ndcg", "NDCG")
    figure, axes = _axes("Quality against speed", "lists per second", name)
    for result in results:
        style = styles[result.name]
        look: dict[str, Any] = {"s": 90, "color": style.colour, "marker": style.marker, "edgecolor": "white"}
        axes.scatter(result.metrics["lists_per_second"], result.metrics[quality], label=result.name, zorder=3, **look)
    for limit, key in ((axes.set_xlim, "lists_per_second"), (axes.set_ylim, quality)):
        largest = max(result.metrics[key] for result in results)
        limit(0, 1.15 * largest if largest > 0 else 1)
    axes.grid(color=_GRID, linewidth=0.8)
    _legend(figure)
    return figure


def _axes(title: str, x: str, y: str, width: float = _WIDTH, height: float = 3.2) -> tuple[Figure, Axes]:
    """A figure of `width` × `height` inches."""
    figure = Figure(figsize=(width, height), dpi=_DPI, layout=_layout())
    axes = figure.add_subplot()
    axes.set(xlabel=x, ylabel=y)
    _prepare(axes, title)
    return figure, axes


def _share(results: Sequence[ArmResult]) -> str:
    return "share of prompts" if "texts_per_second" in results[0].metrics else "share of users"


def _layout() -> ConstrainedLayoutEngine:
    return ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12)


def _prepare(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)


def _legend(figure: Figure) -> None:
    """Add a legend below the axes, in as many columns as fit, and make the figure higher by its lines."""
    _, names = figure.axes[0].get_legend_handles_labels()
    columns = max(1, int(_WIDTH / (0.6 + 0.09 * max(map(len, names)))))
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height + 0.2 * math.ceil(len(names) / columns))
    figure.legend(loc="outside lower center", ncols=columns, frameon=False)


def _hatch(bars: BarContainer, style: ArmStyle) -> None:
    if style.hatch:
        for bar in bars:
            bar.set_hatch(style.hatch)
            bar.set_edgecolor("white")


def _logarithmic(axes: Axes, values: Tensor) -> None:
    """A logarithmic x axis with plain numbers at 1, 2 and 5, or at all digits if the range is small."""
    axes.set_xscale("log")
    few = float(values.max() / values.min()) < 5
    axes.xaxis.set_major_locator(LogLocator(subs=range(1, 10) if few else (1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _slot_names(n_slot_states: int) -> list[str]:
    """Slots as in the tokens' names (`<a_7>`), then the separator and other tokens; a text's tokens have none."""
    if n_slot_states == 1:
        return ["–"]
    return [*(chr(ord("a") + slot) for slot in range(n_slot_states - 2)), "sep", "other"]
