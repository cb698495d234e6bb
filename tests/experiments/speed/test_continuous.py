import json
from pathlib import Path
from typing import Any

import pytest

from experiments.speed.continuous import main
from padrec.data import SemanticIDDataModule, SyntheticReader
from tests.tiny_training import quiet_trainer, tiny_draft, tiny_recommender

_READER: dict[str, Any] = {"n_users": 60, "n_items": 40, "codebook_sizes": [5, 5, 5], "mean_length": 6}


def test_the_same_lists_are_timed_refilled_and_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = SemanticIDDataModule(SyntheticReader(**_READER), list_length=2, max_history=4)
    module, paths = tiny_recommender(data), {name: tmp_path / f"{name}.ckpt" for name in ("target", "draft")}
    trainer = quiet_trainer(tmp_path, max_steps=1, limit_val_batches=0)
    trainer.fit(module, datamodule=data)
    trainer.save_checkpoint(paths["target"])
    trainer = quiet_trainer(tmp_path, max_steps=1, limit_val_batches=0)
    trainer.fit(tiny_draft(data, str(paths["target"])), datamodule=data)
    trainer.save_checkpoint(paths["draft"])
    reader = {"class_path": "padrec.SyntheticReader", "init_args": _READER}
    config = {"class_path": "padrec.SemanticIDDataModule", "init_args": {"reader": reader, "list_length": 2}}
    (tmp_path / "data.yaml").write_text(json.dumps(config))
    arguments = [
        f"--data={tmp_path}/data.yaml",
        f"--target={paths['target']}",
        f"--draft={paths['draft']}",
        f"--output={tmp_path}/report",
        "--users=20",
        "--repeats=1",
        "--device=cpu",
    ]
    main([*arguments, "--rows=[4,8]"])
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert [row["rows"] for row in report["rows"]] == [4, 8]
    for row in report["rows"]:
        assert row["identical_lists"] == 1
        assert row["fewest_passes"] <= row["refilled_passes"]
        assert row["refilled_lists_per_second"] > 0
    assert report["users"] == 20
    assert "| 4 |" in (tmp_path / "report" / "report.md").read_text()
    with pytest.raises(SystemExit):
        main([*arguments, "--rows=[1]"])
    assert "rows [1]: expected numbers from 2" in capsys.readouterr().err
