"""Names that a package exports and imports only when they are first used."""

import ast
import importlib
import sys
from collections.abc import Callable
from pathlib import Path


def lazy_exports(package: str) -> tuple[Callable[[str], object], Callable[[], list[str]], list[str]]:
    """Import the names of a package's `if TYPE_CHECKING` block on first use (PEP 562).

    So each export is written once, where type checkers, editors and import-linter read it:

        if TYPE_CHECKING:
            from padrec.catalog.catalog import Catalog as Catalog
        else:
            __getattr__, __dir__, __all__ = lazy_exports(__name__)

    A name must not be that of a module in the package, which would take its place once it is imported.

    Args:
        package: name of the package, which is being imported.

    Returns:
        Its `__getattr__`, `__dir__` and `__all__`.
    """
    module = sys.modules[package]
    assert module.__file__ is not None
    sources = exported_from(Path(module.__file__))

    def get(name: str) -> object:
        if name not in sources:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(sources[name]), name)
        setattr(module, name, value)
        return value

    names = sorted(sources)
    return get, lambda: sorted({*vars(module), *names}), names


def exported_from(path: Path) -> dict[str, str]:
    """Return the module that each name of a file's `if TYPE_CHECKING` block comes from."""
    statements = ast.parse(path.read_text(encoding="utf-8")).body
    blocks = (statement.body for statement in statements if isinstance(statement, ast.If))
    imports = (line for block in blocks for line in block if isinstance(line, ast.ImportFrom))
    return {alias.name: line.module for line in imports for alias in line.names if line.module}
