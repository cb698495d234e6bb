from pathlib import Path

import pytest

from padrec.catalog import InputError
from padrec.targets import TargetWeights
from tests.tiny_training import quiet_trainer, tiny_backbone, tiny_data, tiny_recommender


def test_training_goes_on_from_another_target(tmp_path: Path) -> None:
    data = tiny_data()
    first = tiny_recommender(data)
    trainer = quiet_trainer(tmp_path, max_steps=3, limit_val_batches=0)
    trainer.fit(first, datamodule=data)
    trainer.save_checkpoint(tmp_path / "target.ckpt")
    first.save_pretrained(tmp_path / "target")
    for name in ("target.ckpt", "target"):
        second = tiny_recommender(data, initial_weights=TargetWeights(str(tmp_path / name)), dropout=0.1)
        assert second.fingerprint() == first.fingerprint()
    start = TargetWeights(str(tmp_path / "target.ckpt"))
    other = tiny_data(separator=False)
    with pytest.raises(InputError, match=r"the initial target .*target\.ckpt"):
        tiny_recommender(other, initial_weights=start)
    deeper = tiny_backbone(num_hidden_layers=3)
    with pytest.raises(InputError, match=r"target\.ckpt: expected a target with the weights of `backbone`"):
        tiny_recommender(data, initial_weights=start, backbone=deeper)
