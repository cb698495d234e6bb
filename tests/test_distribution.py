"""What the source distribution and the wheel hold, and that the wheel's job runs without the repository."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

_REPOSITORY = Path(__file__).parents[1]
_SHORT = "--trainer.max_steps 1 --trainer.limit_val_batches 0 --model.init_args.backbone.num_hidden_layers 1"
_LEFT_OUT = shutil.ignore_patterns(".*", "runs", "build", "dist", "site", "*.egg-info")


def build(kind: str, folder: Path) -> Path:
    """Build in a process of its own, which works in the folder; returns the file."""
    code = f"from hatchling import build; print(build.build_{kind}('dist'))"
    ended = subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, capture_output=True, text=True)
    return folder / "dist" / ended.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from files without git, so without a tag."""
    copy = tmp_path_factory.mktemp("distribution") / "padrec"
    shutil.copytree(_REPOSITORY, copy, ignore=_LEFT_OUT)
    return build("sdist", copy)


@pytest.fixture(scope="module")
def wheel(sdist: Path) -> Path:
    """Built from the source distribution alone."""
    shutil.unpack_archive(sdist, sdist.parent)
    return build("wheel", sdist.parent / sdist.name.removesuffix(".tar.gz"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(folder)
    return folder


def run(arguments: str, installed: Path, folder: Path) -> str:
    """Run the installed program in a folder, away from the repository."""
    environment = os.environ | {"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "padrec", *arguments.split()]
    ended = subprocess.run(command, check=False, cwd=folder, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_the_source_distribution_holds_documentation_and_experiments(sdist: Path) -> None:
    with tarfile.open(sdist) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    assert {"CHANGELOG.md", "constraints.txt", "docs/index.md", "docs/results/README.md"} <= names
    assert {"experiments/quickstart/run.sh", "tests/conf/data.yaml", "tests/stubs.py", "Makefile"} <= names


def test_the_wheel_holds_the_package_and_its_experiments_alone(installed: Path) -> None:
    (metadata,) = installed.glob("padrec-*.dist-info")
    assert {path.name for path in installed.iterdir()} == {"padrec", metadata.name}
    assert (installed / "padrec" / "py.typed").is_file()
    assert (installed / "padrec" / "serving" / "page.html").is_file()
    assert not list(installed.rglob("__pycache__"))
    for config in (_REPOSITORY / "experiments" / "quickstart").glob("*.yaml"):
        assert (installed / "padrec" / "experiments" / "quickstart" / config.name).is_file()
    for script in (installed / "padrec" / "experiments").rglob("*.py"):
        assert "from experiments" not in script.read_text(), f"{script} needs a checkout"


def test_the_version_of_a_source_distribution_is_that_of_its_wheel(
    sdist: Path, installed: Path, tmp_path: Path
) -> None:
    version = sdist.name.removeprefix("padrec-").removesuffix(".tar.gz")
    assert re.match(r"\d", version)
    assert run("--version", installed, tmp_path) == f"padrec {version}\n"


def test_the_wheel_runs_its_experiments_outside_the_repository(installed: Path, tmp_path: Path) -> None:
    names = [line.split()[0] for line in run("experiments list", installed, tmp_path).splitlines()]
    assert names == ["atspeed", "beauty", "office", "own_catalog", "quantizers", "quickstart"]
    assert run("experiments copy quickstart", installed, tmp_path) == "experiments/quickstart\n"
    run(f"fit --config experiments/quickstart/target.yaml {_SHORT}", installed, tmp_path)
    assert (tmp_path / "runs" / "quickstart" / "target" / "checkpoints" / "last.ckpt").is_file()
