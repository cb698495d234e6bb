"""Puts the site that `make docs` built beside those of earlier releases, in the folder that a web server shows:

    python docs/tools/versions.py FOLDER

Each release has a folder of its own there; `versions.json` is what the theme's menu of versions reads.
"""

import json
import shutil
import sys
from pathlib import Path

from packaging.version import Version

from padrec import __version__

_SITE = Path(__file__).parents[2] / "site"


def publish(site: Path, folder: Path, version: str) -> None:
    """Copy a site to `folder/<version>`; the newest of all becomes the first page."""
    shutil.rmtree(folder / version, ignore_errors=True)
    shutil.copytree(site, folder / version)
    found = sorted((page.parent.name for page in folder.glob("*/index.html")), key=Version, reverse=True)
    newest, *_ = found
    menu = [{"version": name, "title": name, "aliases": ["latest"] if name == newest else []} for name in found]
    (folder / "versions.json").write_text(json.dumps(menu, indent=2) + "\n", encoding="utf-8")
    refresh = f'<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0; url={newest}/index.html">\n'
    (folder / "index.html").write_text(refresh, encoding="utf-8")


if __name__ == "__main__":
    publish(_SITE, Path(sys.argv[1]), Version(__version__).public)
