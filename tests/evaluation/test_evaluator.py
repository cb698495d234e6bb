import json
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from jsonargparse import ArgumentParser

from padrec.decoding import (
    AutoregressiveDecoder,
    CatalogDraft,
    ListRequest,
    Request,
    SessionOpener,
    SpeculativeDecoder,
    TransformersRunner,
)
from padrec.evaluation import SpeculativeEvaluator
from padrec.targets import TargetRecommender
from tests.tiny_training import quiet_trainer, tiny_data, tiny_recommender


class CuriousDraft(CatalogDraft):
    """Looks at what a draft may learn from."""

    def bind(self, runner: TransformersRunner, request: Request[Any]) -> SessionOpener:
        assert isinstance(request, ListRequest)
        self.request = request
        return super().bind(runner, request)


def evaluate(folder: Path, target: str | TargetRecommender, draft: CatalogDraft) -> dict[str, Any]:
    data = tiny_data()
    arms = {"autoregressive": AutoregressiveDecoder(), "catalog": SpeculativeDecoder(draft)}
    evaluator = SpeculativeEvaluator(target, arms, data.vocabulary, data.catalog, data.list_length)
    quiet_trainer(folder, precision="64-true").test(evaluator, datamodule=data, verbose=False)
    arms_of_report: dict[str, Any] = json.loads((folder / "report.json").read_text())["arms"]
    return arms_of_report


def test_a_module_is_evaluated_as_its_folder_is_and_left_as_it_was(tmp_path: Path) -> None:
    target = tiny_recommender(tiny_data())
    target.save_pretrained(tmp_path / "target")
    of_module = evaluate(tmp_path / "module", target, CatalogDraft())
    of_folder = evaluate(tmp_path / "folder", str(tmp_path / "target"), CatalogDraft())
    for name in ("tokens", "target_passes", "ndcg@10"):
        assert of_module["catalog"][name] == of_folder["catalog"][name]
    assert all(weight.requires_grad and weight.dtype == torch.float32 for weight in target.parameters())
    assert target.training


def test_a_draft_sees_the_catalog_and_the_training_items(tmp_path: Path) -> None:
    draft = CuriousDraft()
    evaluate(tmp_path, tiny_recommender(tiny_data()), draft)
    split, training = tiny_data().split, draft.request.training
    assert draft.request.catalog.keys == tiny_data().catalog.keys
    assert training is not None
    assert training.items.tolist() == split.train.items.tolist()


def test_half_precision_keeps_the_rotary_frequencies(tmp_path: Path) -> None:
    data = tiny_data(max_users=1)

    class Watching(AutoregressiveDecoder):
        def bind(self, runner: TransformersRunner, request: Request[Any]) -> Any:  # noqa: ANN401
            self.model = runner.model
            return super().bind(runner, request)

    arm = Watching()
    evaluator = SpeculativeEvaluator(
        tiny_recommender(data), {"autoregressive": arm}, data.vocabulary, data.catalog, data.list_length
    )
    trainer = quiet_trainer(tmp_path, precision="bf16-true")
    trainer.test(evaluator, datamodule=data, verbose=False)
    frequencies = [buffer.dtype for name, buffer in arm.model.named_buffers() if name.endswith("inv_freq")]
    assert set(frequencies) == {torch.float32}
    assert {weight.dtype for weight in arm.model.parameters()} == {torch.bfloat16}


def test_the_parser_does_not_read_a_target_as_a_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = tmp_path / "target.ckpt"  # gigabytes, which the parser would read two dozen times
    checkpoint.touch()
    parser = ArgumentParser()
    skipped = {"arms", "vocabulary", "catalog"}
    parser.add_class_arguments(SpeculativeEvaluator, "model", skip=skipped, sub_configs=True)
    monkeypatch.setattr("builtins.open", Mock(side_effect=AssertionError))
    assert parser.parse_args([f"--model.target={checkpoint}"]).model.target == str(checkpoint)
