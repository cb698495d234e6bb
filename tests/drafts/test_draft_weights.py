from pathlib import Path

import pytest
import torch

from padrec.catalog import InputError
from padrec.data import SemanticIDDataModule
from padrec.drafts import DraftWeights
from tests.drafts.reference_drafting import randomise
from tests.tiny_training import fitted, tiny_draft, tiny_recommender


def test_padrec_starts_where_another_draft_ended(
    data: SemanticIDDataModule, target_folder: Path, tmp_path: Path
) -> None:
    eagle = tiny_draft(data, target_folder, init_seed=1, slot_embeddings=False, step_embeddings=False, unrolled_steps=1)
    randomise(eagle.network)
    eagle.save_pretrained(tmp_path / "eagle")
    padrec = tiny_draft(data, target_folder, initial_weights=DraftWeights(str(tmp_path / "eagle")))
    batch = next(iter(data.train_dataloader()))
    losses = [fitted(draft, tmp_path, [batch]).callback_metrics["train/loss_step_1"] for draft in (eagle, padrec)]
    assert losses[0] == losses[1]
    other = tiny_draft(data, target_folder, init_seed=2)
    fitted(other, tmp_path, [batch]).save_checkpoint(tmp_path / "padrec.ckpt")
    again = tiny_draft(data, target_folder, initial_weights=DraftWeights(str(tmp_path / "padrec.ckpt")))
    torch.testing.assert_close(dict(again.network.state_dict()), dict(other.network.state_dict()), rtol=0, atol=0)


def test_an_initial_draft_that_does_not_fit_is_refused(
    data: SemanticIDDataModule, target_folder: Path, tmp_path: Path
) -> None:
    tiny_draft(data, target_folder).save_pretrained(tmp_path / "draft")
    initial = DraftWeights(str(tmp_path / "draft"))
    with pytest.raises(InputError, match=r"(?s)does not fit this draft.*slot_embedding"):
        tiny_draft(data, target_folder, slot_embeddings=False, initial_weights=initial)
    with pytest.raises(InputError, match=r"(?s)does not fit this draft.*step_embedding"):
        tiny_draft(data, target_folder, unrolled_steps=5, initial_weights=initial)
    with pytest.raises(InputError, match="no such file, expected the checkpoint or folder of a draft"):
        tiny_draft(data, target_folder, initial_weights=DraftWeights(str(tmp_path / "absent")))
    tiny_recommender(data, init_seed=1).save_pretrained(tmp_path / "other")
    with pytest.raises(InputError, match="the draft was trained for the target with fingerprint"):
        tiny_draft(data, tmp_path / "other", initial_weights=initial)
