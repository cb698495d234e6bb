"""Fixtures and settings that all tests share."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

# Without a GPU, kernels run on the CPU, by Triton's interpreter. Triton reads this when it is first imported.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

# A time limit per example fails at random on a busy machine; the examples stay as many.
settings.register_profile("padrec", parent=settings(), deadline=None)
settings.load_profile("padrec")


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Folder with the real data sets: PADREC_DATA, by default ../shared/data beside the repository."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("PADREC_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"needs the real data sets: {folder} is no folder, set PADREC_DATA")
    return folder
