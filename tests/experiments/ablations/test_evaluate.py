import json
from pathlib import Path

import pytest

from experiments.ablations.evaluate import USERS_FILE, PairedEvaluator
from padrec import AutoregressiveDecoder, CatalogDraft, DynamicTree, SpeculativeDecoder
from tests.tiny_training import quiet_trainer, tiny_data, tiny_recommender


def test_users_add_up_to_the_report(tmp_path: Path) -> None:
    data = tiny_data()
    arms = {
        "autoregressive": AutoregressiveDecoder(),
        "catalog": SpeculativeDecoder(CatalogDraft(), DynamicTree(depth=3, width=3, nodes=8)),
    }
    evaluator = PairedEvaluator(tiny_recommender(data), arms, data.vocabulary, data.catalog, data.list_length)
    quiet_trainer(tmp_path, precision="64-true").test(evaluator, datamodule=data, verbose=False)
    report = json.loads((tmp_path / "report.json").read_text())
    users = json.loads((tmp_path / USERS_FILE).read_text())
    for name, arm in report["arms"].items():
        assert len(users[name]["tokens"]) == len(users[name]["passes"]) == report["users"]
        ratio = sum(users[name]["tokens"]) / sum(users[name]["passes"])
        assert ratio == pytest.approx(arm["acceptance_length"])
