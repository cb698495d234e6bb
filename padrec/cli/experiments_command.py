"""The commands that list the experiments that come with padrec, and copy one: `padrec experiments list|copy`."""

import os
import re
import shutil
import tempfile
from pathlib import Path

from jsonargparse import Namespace

import padrec
from padrec.catalog import InputError
from padrec.catalog.whole_output import check_absent, writing
from padrec.cli.one_message_parser import OneMessageParser


def experiments(arguments: list[str]) -> None:
    """Run `padrec experiments` with these arguments."""
    settings = _parser().parse_args(arguments)
    if settings.command == "copy":
        _copy(settings.copy)
        return
    found = shipped_experiments()
    width = max(map(len, found))
    for name, folder in found.items():
        print(f"{name.ljust(width)}  {_about(folder)}")


def _copy(settings: Namespace) -> None:
    found = shipped_experiments()
    if settings.name not in found:
        raise InputError(f"experiment {settings.name!r}: expected one of {', '.join(found)}")
    target = settings.target or Path("experiments", settings.name)
    check_absent(target)
    with writing(target):
        target.absolute().parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.absolute().parent, prefix=".") as workplace:
            copy = Path(workplace, "copy")
            shutil.copytree(found[settings.name], copy, ignore=shutil.ignore_patterns("__pycache__"))
            os.replace(copy, target)
    print(target)


def shipped_experiments() -> dict[str, Path]:
    """Return the folders of the experiments by name: those of the package, or of the checkout it runs from."""
    package = Path(padrec.__file__).parent
    shipped, checkout = package / "experiments", package.parent / "experiments"
    folder = shipped if shipped.is_dir() else checkout
    return {path.name: path for path in sorted(folder.iterdir()) if any(path.glob("*.yaml"))}


def _about(folder: Path) -> str:
    """The first sentence of the comment that `run.sh` or, without one, its first script or config starts with."""
    file = next(file for name in ("run.sh", "*.sh", "*.yaml") for file in sorted(folder.glob(name)))
    comment = re.search(r"^# (.+(?:\n# .+)*)", file.read_text(encoding="utf-8"), re.MULTILINE)
    first, _, _ = comment[1].replace("\n# ", " ").partition(". ") if comment else ("", "", "")
    return first.removesuffix(".")


def _parser() -> OneMessageParser:
    parser = OneMessageParser(prog="padrec experiments", description="The experiments that come with padrec.")
    commands = parser.add_subcommands(dest="command")
    commands.add_subcommand("list", OneMessageParser(description="List them."), help="list them")
    copy = OneMessageParser(description="Copy the configs and scripts of one, to run and to change.")
    copy.add_argument("name", type=str, help="an experiment of the list")
    copy.add_argument(
        "target", type=Path, nargs="?", help="new folder; by default experiments/<name>, which most scripts expect"
    )
    commands.add_subcommand("copy", copy, help="copy one")
    return parser
