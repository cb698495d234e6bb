from collections.abc import Sequence

import pytest
import torch
from matplotlib import pyplot
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from padrec.evaluation.arm_metrics import ArmResult
from padrec.evaluation.figures import (
    acceptance_by_depth,
    acceptance_by_slot_and_depth,
    accepted_by_source,
    accepted_lengths,
    arm_styles,
    comparison_figures,
    quality_by_cutoff,
    users_by_target_passes,
)
from tests.evaluation.toy_comparison import toy_result, toy_results

LONG_NAME = "padrec without the position-aware part"


def fits(figure: Figure) -> bool:
    """Whether everything that is drawn, text above all, lies inside the picture."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    renderer: RendererAgg = canvas.get_renderer()  # type: ignore[no-untyped-call]
    drawn, (width, height) = figure.get_tightbbox(renderer), figure.get_size_inches()
    return bool(drawn.x0 >= 0 and drawn.y0 >= 0 and drawn.x1 <= width and drawn.y1 <= height)


def bars(figure: Figure) -> list[Rectangle]:
    return [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]


@pytest.mark.parametrize(
    "results",
    [
        toy_results(),
        [toy_result("autoregressive", 1.0, 0)],
        [toy_result(LONG_NAME, 1.0, 1), toy_result("b", 30.0, 12)],
        [toy_result(f"arm {number}", 1.0 + number, number) for number in range(10)],
    ],
    ids=["usual", "no draft", "long names", "many arms"],
)
def test_no_text_is_clipped_and_every_axis_is_named(results: Sequence[ArmResult]) -> None:
    for name, figure in comparison_figures(results).items():
        assert fits(figure), name
        axes = figure.axes[0]
        assert axes.get_title(loc="left"), name
        assert axes.get_xlabel(), name
        assert axes.get_ylabel() or name == "speedup", name


def test_there_is_a_figure_for_everything_that_the_arms_have() -> None:
    always = {"speedup", "latency", "users_by_target_passes", "quality_by_cutoff", "quality_against_speed"}
    assert set(comparison_figures(toy_results())) == always | {
        "acceptance/padrec",
        "acceptance_by_depth",
        "accepted_lengths",
    }
    assert set(comparison_figures(toy_results()[:1])) == always


def test_pyplot_is_left_alone() -> None:
    before = pyplot.get_fignums()
    comparison_figures(toy_results())
    assert pyplot.get_fignums() == before


def test_an_arm_has_one_style_and_no_two_arms_share_it() -> None:
    results = [toy_result(f"arm {number}", 1.0, 1) for number in range(12)]
    styles = arm_styles([result.name for result in results])
    assert len(set(styles.values())) == 12
    assert arm_styles(["arm 0", "arm 1", "arm 2"]) == {name: styles[name] for name in ("arm 0", "arm 1", "arm 2")}
    figures = comparison_figures(toy_results())
    colour = arm_styles([result.name for result in toy_results()])["padrec"].colour.lower()
    assert to_hex(bars(figures["speedup"])[1].get_facecolor()) == colour
    assert to_hex(bars(figures["accepted_lengths"])[0].get_facecolor()) == colour
    assert to_hex(figures["latency"].axes[0].lines[1].get_color()) == colour


def test_the_heat_map_shows_reached_slots_and_their_shares() -> None:
    result = toy_result("padrec", 2.0, 3)
    axes = acceptance_by_slot_and_depth(result).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c", "sep"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2", "3"]
    shown = [text.get_text() for text in axes.texts]
    assert shown == [f"{100 * share:.0f}" for share in result.acceptance.flatten().tolist() if share == share]
    assert len(shown) == 3 * 4 - 1


def test_acceptance_by_depth_is_the_reports() -> None:
    (line,) = acceptance_by_depth(toy_results()).axes[0].lines
    assert line.get_xydata().tolist() == [  # type: ignore[union-attr]
        [depth, share] for depth, share in enumerate(toy_results()[1].metrics["acceptance_by_depth"], start=1)
    ]


def test_users_by_target_passes_are_shares() -> None:
    line, *_ = users_by_target_passes(toy_results()).axes[0].lines
    assert line.get_xydata().tolist() == [[1, 0.25], [2, 0.75]]  # type: ignore[union-attr]


def test_quality_has_a_curve_for_each_metric() -> None:
    recall, ndcg = quality_by_cutoff(toy_results()[:1]).axes[0].lines
    assert recall.get_xydata().tolist() == [[5, 0.05], [10, 0.08]]  # type: ignore[union-attr]
    assert ndcg.get_xydata().tolist() == [[5, 0.03], [10, 0.0412]]  # type: ignore[union-attr]


def test_sources_share_the_accepted_tokens_of_an_arm() -> None:
    plain, combined, *_ = toy_results()
    other = toy_result(LONG_NAME, 2.0, 3)
    combined.metrics["accepted_by"] = {"retrieval": 30, "learned": 10, "forced": 0}
    other.metrics["accepted_by"] = {"learned": 0}
    results = [plain, combined, other]
    assert "accepted_by_source" in comparison_figures(results)
    figure = accepted_by_source(results)
    ends = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in bars(figure)]
    assert ends == [(0, 0.75), (0, 0), (0.75, 1), (0, 0), (1, 1), (0, 0)]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["padrec", LONG_NAME]
    assert fits(figure)


def test_accepted_lengths_are_shares_of_an_arms_rounds() -> None:
    heights = torch.tensor([float(bar.get_height()) for bar in bars(accepted_lengths(toy_results()))]).double()
    torch.testing.assert_close(heights, torch.arange(7.0, dtype=torch.float64).flip(0).add(1) / 28)
