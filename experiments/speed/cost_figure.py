"""What a target pass costs by the nodes it reads."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, NullFormatter

# Okabe and Ito's, which people with any colour vision tell apart.
_COLOURS = ("#333333", "#E69F00", "#0072B2", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")
_LINES = ("-", "--", "-.", ":")


def cost_by_nodes(shape: str, found: Mapping[str, Any]) -> Figure:
    """Milliseconds of a target pass over its nodes, a colour for each batch size and a dash for each prefix."""
    figure = Figure(figsize=(7.5, 4.2), dpi=120, layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12))
    axes = figure.add_subplot()
    axes.set_title(f"Target pass, {shape}", loc="left")
    axes.set(xlabel="nodes of each row", ylabel="milliseconds", xscale="log", yscale="log")
    rows = found["target_pass"]
    batches, prefixes = (list(dict.fromkeys(row[key] for row in rows)) for key in ("batch", "prefix"))
    for batch_number, batch in enumerate(batches):
        for prefix_number, prefix in enumerate(prefixes):
            line = [row for row in rows if (row["batch"], row["prefix"]) == (batch, prefix)]
            axes.plot(
                [row["nodes"] for row in line],
                [row["milliseconds"] for row in line],
                color=_COLOURS[batch_number % len(_COLOURS)],
                linestyle=_LINES[prefix_number % len(_LINES)],
                marker="o",
                markersize=4,
                label=f"batch {batch}, prefix {prefix}",
            )
    axes.axhline(found["floor_ms"], color="black", linewidth=1, linestyle=":", label="weights ÷ bandwidth")
    axes.set_xticks(list(dict.fromkeys(row["nodes"] for row in rows)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#DDDDDD", linewidth=0.8)
    figure.legend(loc="outside right upper", frameon=False)
    return figure
