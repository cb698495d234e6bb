import json
import sys
from pathlib import Path

import pytest

from experiments.office import language_model
from padrec.data import PromptTemplate
from padrec.targets import PretrainedModel, TargetRecommender
from tests.tiny_training import tiny_data


def test_a_target_can_start_from_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = {str(number): {"title": f"pen no. {number}", "description": "blue ink " * 40} for number in range(60)}
    (tmp_path / "Toy.item.json").write_text(json.dumps(items))
    monkeypatch.setattr(language_model, "_STEPS", 3)
    arguments = ["language_model.py", str(tmp_path), str(tmp_path / "model")]
    monkeypatch.setattr(sys, "argv", arguments)
    language_model.main()
    data = tiny_data(prompt=PromptTemplate(str(tmp_path / "model")))
    TargetRecommender(data.vocabulary, initial_weights=PretrainedModel(str(tmp_path / "model")))
    with pytest.raises(SystemExit):
        language_model.main()  # nothing is overwritten
