from pathlib import Path

import pytest

from padrec.data import SemanticIDDataModule
from tests.tiny_training import tiny_data, tiny_recommender


@pytest.fixture(scope="module")
def data() -> SemanticIDDataModule:
    return tiny_data()


@pytest.fixture(scope="module")
def target_folder(data: SemanticIDDataModule, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("target") / "saved"
    tiny_recommender(data).save_pretrained(folder)
    return folder
