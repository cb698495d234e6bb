"""Exports are imported when they are used: what each import loads, and that every export is there."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import padrec

_PACKAGE = Path(padrec.__file__).parent
_PACKAGES = [
    ".".join(("padrec", *path.parent.relative_to(_PACKAGE).parts))
    for path in sorted(_PACKAGE.rglob("__init__.py"))
    if "lazy_exports(__name__)" in path.read_text(encoding="utf-8")
]
_LARGE = {"torch", "transformers", "lightning", "torchmetrics", "peft", "matplotlib", "scipy", "pyarrow", "tensorboard"}


def loaded(program: str) -> set[str]:
    """The large packages that a fresh Python process has imported after running a program."""
    code = f"{program}\nimport sys\nprint(*sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return _LARGE & set(ended.stdout.split())


@pytest.mark.parametrize("package", _PACKAGES)
def test_every_export_can_be_imported(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__all__
    assert set(module.__all__) <= set(dir(module))
    for name in module.__all__:
        assert getattr(module, name) is not None


@pytest.mark.parametrize("package", _PACKAGES)
def test_no_export_has_the_name_of_a_module_of_its_package(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__file__ is not None
    modules = {path.stem for path in Path(module.__file__).parent.iterdir()}
    assert not modules & set(module.__all__)


def test_an_unknown_name_is_an_attribute_error_that_names_it() -> None:
    with pytest.raises(AttributeError, match="module 'padrec' has no attribute 'Recomender'"):
        padrec.Recomender  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'Recomender' from 'padrec'"):
        from padrec import Recomender  # type: ignore[attr-defined]  # noqa: F401


@pytest.mark.parametrize("package", _PACKAGES)
def test_a_package_alone_loads_nothing_large(package: str) -> None:
    assert loaded(f"import {package}") == set()


def test_help_loads_nothing_large() -> None:
    program = "from padrec.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass"
    assert loaded(program) == set()


def test_preparing_a_log_loads_neither_pytorch_nor_lightning() -> None:
    assert loaded("import padrec, padrec.cli\npadrec.Preparation") == {"pyarrow"}


def test_predicting_loads_no_adapters_and_no_log_formats() -> None:
    found = loaded("from padrec import RecommendationWriter, SemanticIDDataModule, TargetRecommender")
    assert not found & {"peft", "pyarrow", "tensorboard"}
