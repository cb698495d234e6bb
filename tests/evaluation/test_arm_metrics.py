import math

import pytest
import torch
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
from padrec.evaluation.evaluator import models_of_comparison
from padrec.metrics.exact_metric import ExactMetric

_CATALOG = Catalog(torch.tensor([[0, 0], [0, 1], [1, 0]]), ["a", "b", "c"])


def recommend(*lists: list[int]) -> Recommendations:
    tokens = torch.tensor(lists)
    return Recommendations(tokens, tokens, -tokens.float())


def updated(sequential: bool, expected: Recommendations | None) -> ArmMetrics:
    metrics = ArmMetrics(_CATALOG, n_slot_states=4, max_depth=0, sequential=sequential)
    users = torch.arange(2)
    batch = PromptBatch(
        tokens=torch.ones(2, 1, dtype=torch.long),
        slots=torch.full((2, 1), 3),
        lengths=torch.ones(2, dtype=torch.long),
        users=users,
        counted=torch.ones(2, dtype=torch.bool),
        history=users[:, None],
        relevant=users[:, None],
        relevant_items=users[:, None],
    )
    trace = DecodingTrace(0.1, 0.2, users, users, users + 2, torch.zeros(4, 0), torch.zeros(4, 0), users[:1])
    metrics.update(batch, recommend([0, 1], [1, 2]), trace, expected, trace)
    return metrics


@pytest.mark.parametrize("sequential", [True, False])
def test_lists_are_compared_with_those_that_are_expected(sequential: bool) -> None:
    found = updated(sequential, recommend([0, 1], [1, 0])).result("arm", is_reference=False).metrics
    assert found["identical_lists"] == 0.5
    # Where no item stands behind another, the first difference says nothing about the target's margin.
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
    assert models_of_comparison(arms) == {
        "transformers": "autoregressive",
        "beam": None,
        "wide": None,
        "autoregressive": "autoregressive",
        "transformers-beam": "beam",
        "steps": "beam",
        "renormalised": None,
    }
