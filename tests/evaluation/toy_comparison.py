"""A made-up comparison of three arms, shared by the tests of this room."""

from typing import Any

import torch

from padrec.evaluation.arm_metrics import ArmResult
from padrec.evaluation.report import Report

N_SLOT_STATES = 5  # three slots, the separator, other tokens


def toy_metrics(speedup: float, max_depth: int) -> dict[str, Any]:
    depths = [0.9 - 0.1 * depth for depth in range(max_depth)]
    return {
        "seconds": 100 / speedup,
        "prefill_seconds": 5.0,
        "recording_seconds": 12.5,
        "tokens": 39000,
        "tokens_per_second": 390 * speedup,
        "lists_per_second": 10 * speedup,
        "latency_ms": {"p50": 100 / speedup, "p95": 130 / speedup, "p99": 140 / speedup},
        "target_passes": int(38000 / (1 + sum(depths))),
        "draft_passes": 9000 * min(max_depth, 1),
        "acceptance_length": 1 + sum(depths),
        "accepted_per_pass": sum(depths),
        "accepted_steps": 2.5,
        "accepted_share": 0.625,
        "one_pass_users": 0.0,
        "users_by_target_passes": [0, 250, 750],
        "acceptance_by_slot": [0.5, 0.75, 1.0, 1.0, float("nan")] if max_depth else [],
        "acceptance_by_depth": depths,
        "ndcg@5": 0.03,
        "ndcg@10": 0.0412,
        "recall@5": 0.05,
        "recall@10": 0.08,
        "quality_ci95": {name: [0.02, 0.09] for name in ("ndcg@5", "ndcg@10", "recall@5", "recall@10")},
        "valid_items": 1.0,
        "distinct_items": 1.0,
        "speedup": speedup,
        "speedup_ci95": [speedup - 0.1, speedup + 0.15] if max_depth else [speedup, speedup],
        "speedup_median": speedup,
        "identical_lists": 1.0,
    }


def toy_result(name: str, speedup: float, max_depth: int) -> ArmResult:
    generator = torch.Generator().manual_seed(max_depth)
    acceptance = torch.rand(N_SLOT_STATES, max_depth, generator=generator, dtype=torch.float64)
    acceptance[-1] = float("nan")
    acceptance[0, 1:2] = float("nan")
    latencies = 100 / speedup * (1 + 0.1 * torch.randn(50, generator=generator, dtype=torch.float64)).clamp(min=0.5)
    return ArmResult(
        name=name,
        metrics=toy_metrics(speedup, max_depth),
        acceptance=acceptance,
        accepted_lengths=torch.arange(max_depth + 1).flip(0) + 1,
        latencies_ms=latencies.sort().values,
    )


def toy_results() -> list[ArmResult]:
    return [toy_result("autoregressive", 1.0, 0), toy_result("padrec", 2.5, 6), toy_result("transformers", 0.5, 0)]


def toy_report(**changes: Any) -> Report:
    fields: dict[str, Any] = {
        "dataset": "toy",
        "settings": {
            "users": 1000,
            "list_length": 10,
            "batch_size": 4,
            "temperature": 0.0,
            "constraint": "catalog",
            "precision": "32-true",
            "device": "CPU",
        },
        "versions": {"padrec": "0.1.0", "torch": "2.13.0"},
        "seed": 0,
        "command": "padrec test --config a.yaml",
        "reference": "autoregressive",
        "arms": {result.name: result.metrics for result in toy_results()},
    }
    settings = fields["settings"]
    settings |= {name: value for name, value in changes.items() if name in settings}
    return Report(**fields | {name: value for name, value in changes.items() if name not in settings})
