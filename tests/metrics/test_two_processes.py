"""Every metric gives on two processes what it gives on one, padding rows and idle processes included."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributed import init_process_group
from torchmetrics import MetricCollection

from padrec.metrics import (
    NDCG,
    AcceptanceLength,
    AcceptanceRate,
    AcceptedLengths,
    AcceptedPerPass,
    CodebookQuality,
    ItemNDCG,
    ItemRecall,
    Latency,
    Mean,
    Recall,
    Speed,
    Speedup,
    Total,
    UsersByPasses,
)
from tests.two_processes import on_two_processes

_N_LEAVES, _N_SLOTS, _DEPTH = 8, 3, 2

Batch = dict[str, Any]


def all_metrics() -> MetricCollection:
    return MetricCollection(
        {
            "ndcg@2": NDCG(2),
            "ndcg@5": NDCG(5),
            "recall@5": Recall(5),
            "item_ndcg@5": ItemNDCG(5),
            "item_recall@5": ItemRecall(5),
            "acceptance_length": AcceptanceLength(),
            "accepted_per_pass": AcceptedPerPass(),
            "accepted_lengths": AcceptedLengths(_DEPTH),
            "users_by_passes": UsersByPasses(),
            "by_slot": AcceptanceRate(_N_SLOTS, _DEPTH, "slot"),
            "by_depth": AcceptanceRate(_N_SLOTS, _DEPTH, "depth"),
            "speed": Speed(),
            "latency": Latency(),
            "speedup": Speedup(n_resamples=100),
            "codebooks": CodebookQuality(_N_LEAVES, (2, 2)),
            "total": Total(),
            "mean": Mean(),
        }
    )


def make_batch(unit: int, users: list[int], n_padding: int = 0) -> Batch:
    """Batch in which all that belongs to a user follows from its number, so that padding repeats real users."""
    rows = users + [0] * n_padding
    drawn = [torch.Generator().manual_seed(user) for user in rows]

    def draw(low: int, high: int, *shape: int) -> Tensor:
        return torch.stack([torch.randint(low, high, shape, generator=generator) for generator in drawn])

    leaf_of_item = torch.arange(12) % _N_LEAVES
    attempted = draw(1, 9, _N_SLOTS, _DEPTH)
    return {
        "recommended": draw(-1, _N_LEAVES, 5),
        "relevant": draw(-1, _N_LEAVES, 3),
        "relevant_items": draw(-1, 12, 3),
        "leaf_of_item": leaf_of_item,
        "leaf_sizes": leaf_of_item.bincount(),
        "tokens": draw(20, 30),
        "target_passes": draw(5, 10),
        "attempted": attempted,
        "accepted": attempted - draw(0, 2, _N_SLOTS, _DEPTH),
        "accepted_lengths": draw(0, 5, _DEPTH + 1),
        "items": torch.tensor(rows, dtype=torch.long),
        "codes": draw(0, 2, 2),
        "errors": draw(0, 9, 2),
        "seconds": 0.1 + 0.01 * unit,
        "prefill_seconds": 0.03,
        "unit": unit,
        "reference_seconds": 0.3 + 0.001 * unit**2,
        "arm_seconds": 0.1 + 0.01 * unit,
        "counted": torch.arange(len(rows)) < len(users),
        "values": torch.tensor(users) / 7,
    }


# Per case, the batches of one process, and how two processes share them: the second has fewer, or none.
CASES: dict[str, tuple[list[Batch], list[list[Batch]]]] = {
    "padding rows and a padding batch": (
        [make_batch(0, [0, 1, 2]), make_batch(1, [3, 4, 5]), make_batch(2, [6, 7])],
        [
            [make_batch(2, [6, 7], n_padding=1), make_batch(0, [0, 1, 2])],
            [make_batch(1, [3, 4, 5]), make_batch(3, [], n_padding=3)],
        ],
    ),
    "a process without batches": (
        [make_batch(0, [0, 1]), make_batch(1, [2])],
        [[make_batch(0, [0, 1]), make_batch(1, [2])], []],
    ),
}


def compute(batches: list[Batch]) -> dict[str, Tensor]:
    metrics = all_metrics()
    for batch in batches:
        metrics.update(**batch)
    values: dict[str, Tensor] = metrics.compute()
    return values


def run_process(rank: int, folder: Path) -> None:
    init_process_group("gloo", rank=rank, world_size=2, timeout=timedelta(seconds=60))
    torch.save({name: compute(shares[rank]) for name, (_, shares) in CASES.items()}, folder / f"{rank}.pt")


@pytest.fixture(scope="module")
def values_of_processes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Tensor]]]:
    folder = tmp_path_factory.mktemp("two_processes")
    on_two_processes(run_process, folder)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
@pytest.mark.parametrize("case", CASES)
def test_two_processes_give_the_result_of_one(
    case: str, values_of_processes: list[dict[str, dict[str, Tensor]]]
) -> None:
    expected = compute(CASES[case][0])
    assert len(expected) >= len(all_metrics())
    assert not any(value.isnan().any() for value in expected.values())
    for values in values_of_processes:
        torch.testing.assert_close(values[case], expected, rtol=1e-12, atol=0)
