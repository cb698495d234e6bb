"""What the source distribution and the wheel hold."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

_REPOSITORY = Path(__file__).parents[1]
_BUILD = "from setuptools import build_meta as b; b.build_sdist('dist'); b.build_wheel('dist')"


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("distribution") / "padrec"
    shutil.copytree(_REPOSITORY, copy, ignore=shutil.ignore_patterns(".*", "runs", "build", "dist", "*.egg-info"))
    subprocess.run([sys.executable, "-W", "ignore", "-c", _BUILD], cwd=copy, check=True, capture_output=True)
    return copy / "dist"


def test_the_source_distribution_holds_documentation_and_experiments(dist: Path) -> None:
    (archive,) = dist.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    assert {"CHANGELOG.md", "constraints.txt", "docs/index.md", "docs/results/README.md"} <= names
    assert {"experiments/quickstart/run.sh", "tests/conf/data.yaml", "tests/stubs.py", "Makefile"} <= names


def test_the_wheel_holds_a_job_to_run(dist: Path) -> None:
    (archive,) = dist.glob("*.whl")
    with zipfile.ZipFile(archive) as file:
        names = [name.partition(".data/data/")[2] for name in file.namelist()]
    for config in (_REPOSITORY / "experiments" / "quickstart").glob("*.yaml"):
        assert f"share/padrec/quickstart/{config.name}" in names
    assert "share/padrec/quickstart/run.sh" in names
