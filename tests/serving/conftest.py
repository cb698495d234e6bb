from pathlib import Path

import pytest

from padrec.data import SemanticIDDataModule
from tests.serving.tiny_service import write_recommender
from tests.tiny_training import tiny_data


@pytest.fixture(scope="session")
def data() -> SemanticIDDataModule:
    return tiny_data(list_marker=True)


@pytest.fixture(scope="session")
def shop(data: SemanticIDDataModule, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an untrained recommender."""
    return write_recommender(data, tmp_path_factory.mktemp("recommender"))
