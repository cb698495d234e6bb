from pathlib import Path

import pytest
import torch

from padrec.catalog import InputError, SemanticIDVocabulary
from padrec.training import read_checkpoint, stored_hyperparameters, stored_vocabulary
from padrec.training.whole_checkpoint_io import WholeCheckpointIO
from tests.damage import with_a_flipped_bit


def saved(folder: Path, content: object) -> Path:
    torch.save(content, folder / "module.ckpt")
    return folder / "module.ckpt"


@pytest.mark.parametrize("kind", ["target", None])
def test_a_checkpoint_of_the_kind_is_read(kind: str | None, tmp_path: Path) -> None:
    content = {"kind": "target", "seed": 3}
    assert read_checkpoint(saved(tmp_path, content), kind) == content


@pytest.mark.parametrize("place", [0.2, 0.5, 0.8])
def test_a_flipped_bit_is_noticed(place: float, tmp_path: Path) -> None:
    path = saved(tmp_path, {"kind": "target", "weights": torch.arange(1000.0)})
    path.write_bytes(with_a_flipped_bit(path.read_bytes(), place))
    for read in (read_checkpoint, WholeCheckpointIO().load_checkpoint):
        with pytest.raises(InputError, match=r"module\.ckpt: damaged in"):
            read(path)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("draft", "a checkpoint of kind 'quantizer', expected 'draft'"),
        ("target", "a checkpoint of kind 'quantizer', expected 'target'"),
    ],
)
def test_another_kind_is_refused(kind: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        read_checkpoint(saved(tmp_path, {"kind": "quantizer"}), kind)


def test_a_checkpoint_without_a_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="kind None, expected that of a padrec module"):
        read_checkpoint(saved(tmp_path, {"state_dict": {}}))


def test_a_checkpoint_of_arbitrary_objects_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a Lightning checkpoint of tensors and primitives"):
        read_checkpoint(saved(tmp_path, {"kind": "target", "module": Path("x")}))


def test_hyperparameters_leave_out_what_the_command_line_adds() -> None:
    stored = {"hyper_parameters": {"_class_path": "padrec.PADRecDraft", "learning_rate": 0.1}}
    assert stored_hyperparameters(stored) == {"learning_rate": 0.1}


def test_the_vocabulary_comes_back() -> None:
    vocabulary = SemanticIDVocabulary([3, 4])
    checkpoint = {"kind": "target", "vocabulary": vocabulary.to_dict()}
    assert stored_vocabulary(checkpoint, "target").to_dict() == vocabulary.to_dict()
    with pytest.raises(InputError, match="a checkpoint of kind 'target', expected 'draft'"):
        stored_vocabulary(checkpoint, "draft")
