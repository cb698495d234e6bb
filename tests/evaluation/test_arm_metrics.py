import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torchmetrics import Metric

from padrec.catalog import Catalog
from padrec.data.batches import PromptBatch
from padrec.decoding import (
    AutoregressiveDecoder,
    BeamDecoder,
    Decoder,
    DecodingTrace,
    Recommendations,
    TransformersBeamDecoder,
    TransformersDecoder,
)
from padrec.evaluation import ArmMetrics
from padrec.evaluation.arm_comparison import models_of_comparison
from padrec.evaluation.arm_metrics import ListQuality
from padrec.metrics import NDCG, Recall
from padrec.metrics.exact_metric import ExactMetric

_CATALOG = Catalog(torch.tensor([[0, 0], [0, 1], [1, 0]]), ["a", "b", "c"])


def recommend(*lists: list[int]) -> Recommendations:
    tokens = torch.tensor(lists)
    return Recommendations(tokens, tokens, -tokens.float())


def users_with(relevant: Tensor) -> PromptBatch:
    users = torch.arange(len(relevant))
    return PromptBatch(
        tokens=torch.ones(len(users), 1, dtype=torch.long),
        slots=torch.full((len(users), 1), 3),
        lengths=torch.ones_like(users),
        users=users,
        counted=torch.ones_like(users, dtype=torch.bool),
        history=users[:, None],
        relevant=relevant,
        relevant_items=relevant,
    )


def trace_of(batch: PromptBatch) -> DecodingTrace:
    none = torch.zeros(4, 0)
    return DecodingTrace(0.1, 0.2, batch.users, batch.users, batch.users + 2, none, none, batch.users[:1])


def updated(sequential: bool, expected: Recommendations | None) -> ArmMetrics:
    metrics = ArmMetrics("lists", n_slot_states=4, max_depth=0, quality=ListQuality(_CATALOG), sequential=sequential)
    batch = users_with(torch.arange(2)[:, None])
    metrics.update(batch, recommend([0, 1], [1, 2]), trace_of(batch), expected, trace_of(batch))
    return metrics


def test_rankings_of_many_batches_are_those_of_one_after_the_other() -> None:
    metrics = ArmMetrics("lists", n_slot_states=4, max_depth=0, quality=ListQuality(_CATALOG))
    expected: dict[str, Metric] = {"ndcg@5": NDCG(5), "recall@10": Recall(10)}
    generator = torch.Generator().manual_seed(0)
    for number in range(200):
        # Batches differ in their users' most relevant items, users in how many of them are there.
        relevant = torch.stack([torch.randperm(3, generator=generator)[: 1 + number % 3] for _ in range(3)])
        relevant[0, 1:] = -1
        batch = users_with(relevant)
        lists = Recommendations(*(torch.randint(-1, 3, (3, 2), generator=generator),) * 2, torch.zeros(3, 2))
        metrics.update(batch, lists, trace_of(batch), None, trace_of(batch))
        for metric in expected.values():
            metric.update(lists.leaves, relevant)
    found = metrics.result("arm", is_reference=False).metrics
    for name, metric in expected.items():
        assert found[name] == pytest.approx(float(metric.compute()), rel=1e-12)
        low, high = found["quality_ci95"][name]
        assert 0 < low < found[name] < high < low + 0.1  # of 600 users
        assert found[f"item_{name}"] == pytest.approx(found[name], rel=1e-12)  # every item has an ID of its own here


def test_lists_are_judged_at_the_given_lengths() -> None:
    metrics = ArmMetrics("lists", n_slot_states=4, max_depth=0, quality=ListQuality(_CATALOG, [2, 1, 2]))
    batch = users_with(torch.arange(2)[:, None])
    metrics.update(batch, recommend([0, 1], [2, 1]), trace_of(batch), None, trace_of(batch))
    found = metrics.result("arm", is_reference=False).metrics
    assert {name: value for name, value in found.items() if name.startswith("recall@")} == {
        "recall@1": 0.5,
        "recall@2": 1.0,
    }
    assert found["quality_ci95"]["recall@1"] == [0, 1]  # 0.5 ± 0.69
    assert found["quality_ci95"]["recall@2"] == [1, 1]


def test_users_are_counted_by_the_passes_after_the_first() -> None:
    metrics = ArmMetrics("lists", n_slot_states=4, max_depth=1)
    batch = users_with(torch.arange(3)[:, None])  # users 0, 1, 2 took as many passes
    counts = torch.zeros(4, 1, dtype=torch.long)
    trace = replace(trace_of(batch), attempted=counts, accepted=counts, accepted_lengths=torch.tensor([1, 5]))
    metrics.update(batch, recommend([0, 1], [2, 1], [0, 2]), trace, None, trace)
    found = metrics.result("arm", is_reference=False).metrics
    assert (found["target_passes"], found["users_by_target_passes"]) == (3, [1, 1, 1])
    assert (found["one_pass_users"], found["accepted_steps"]) == (1 / 3, 5 / 3)
    assert found["accepted_share"] == 5 / 8


@pytest.mark.parametrize("sequential", [True, False])
def test_lists_are_compared_with_those_that_are_expected(sequential: bool) -> None:
    found = updated(sequential, recommend([0, 1], [1, 0])).result("arm", is_reference=False).metrics
    assert found["identical_lists"] == 0.5
    # Where no item follows another, the first difference says nothing about the target's margin.
    assert found["first_difference_margin"] == (2.0 if sequential else None)


def test_an_arm_without_equals_is_compared_with_none() -> None:
    found = updated(sequential=False, expected=None).result("arm", is_reference=False).metrics
    assert math.isnan(found["identical_lists"])
    assert found["first_difference_margin"] is None
    assert (found["valid_items"], found["distinct_items"]) == (1.0, 1.0)


def test_no_metric_counts_in_the_precision_of_the_model() -> None:
    metrics = [module for module in updated(True, None).modules() if isinstance(module, Metric)]
    assert len(metrics) > 10
    assert {type(metric) for metric in metrics if not isinstance(metric, ExactMetric)} == set()


def test_arms_are_compared_with_the_first_of_their_search() -> None:
    arms: dict[str, Decoder] = {
        "transformers": TransformersDecoder(),
        "beam": BeamDecoder(),
        "wide": BeamDecoder(20),
        "autoregressive": AutoregressiveDecoder(),
        "transformers-beam": TransformersBeamDecoder(),
        "steps": BeamDecoder(look_ahead=0),
        "renormalised": BeamDecoder(renormalise=True),
    }
    assert models_of_comparison(arms, "autoregressive") == {
        "transformers": "autoregressive",
        "beam": None,
        "wide": None,
        "autoregressive": "autoregressive",
        "transformers-beam": "beam",
        "steps": "beam",
        "renormalised": None,
    }


def test_any_arm_can_be_the_reference() -> None:
    arms: dict[str, Decoder] = {"autoregressive": AutoregressiveDecoder(), "transformers": TransformersDecoder()}
    assert models_of_comparison(arms, "transformers") == dict.fromkeys(arms, "transformers")


def test_speed_is_compared_with_further_references() -> None:
    metrics = ArmMetrics(
        "lists", n_slot_states=4, max_depth=0, quality=ListQuality(_CATALOG), further_references=["a.b", "slow"]
    )
    batch = users_with(torch.arange(2)[:, None])
    trace = trace_of(batch)
    slow = replace(trace, decode_seconds=10 * trace.seconds - trace.prefill_seconds)
    metrics.update(batch, recommend([0, 1], [1, 2]), trace, None, trace, [trace, slow])
    found = metrics.result("arm", is_reference=False).metrics
    assert found["speedup_over_a.b"] == pytest.approx(1.0)
    assert found["speedup_over_slow"] == pytest.approx(10.0)
    assert found["speedup_over_slow_ci95"] == pytest.approx([10.0, 10.0])


def test_lists_are_counted_by_the_decoder_that_was_chosen_for_them() -> None:
    metrics = ArmMetrics(
        "lists", n_slot_states=4, max_depth=0, quality=ListQuality(_CATALOG), decoders=["a tree", "tree 0.5", "none"]
    )
    for users, chosen in ((3, "tree 0.5"), (2, "none"), (1, "tree 0.5")):
        batch = users_with(torch.arange(users)[:, None])
        trace = replace(trace_of(batch), decoder=chosen)
        lists = Recommendations(*(torch.zeros(users, 2, dtype=torch.long),) * 2, torch.zeros(users, 2))
        metrics.update(batch, lists, trace, None, trace)
    assert metrics.result("arm", is_reference=False).metrics["lists_by"] == {"tree 0.5": 4, "none": 2}


def test_accepted_tokens_are_counted_by_source() -> None:
    metrics = ArmMetrics("lists", n_slot_states=4, max_depth=0, sources=["retrieval", "forced"])
    for counts in ({"retrieval": 3, "forced": 1}, {"retrieval": 2}):
        batch = users_with(torch.arange(2)[:, None])
        trace = replace(trace_of(batch), accepted_by_source=counts)
        metrics.update(batch, recommend([0, 1], [1, 2]), trace, None, trace)
    assert metrics.result("arm", is_reference=False).metrics["accepted_by"] == {"retrieval": 5, "forced": 1}
