"""What MkDocs cannot do alone: pages from outside docs/, an API reference of all exports, the version.

MkDocs calls the functions named on_… .
"""

import os
import re
from importlib.util import find_spec
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nbconvert import MarkdownExporter

import padrec
from padrec.lazy_exports import exported_from

_REPOSITORY = Path(__file__).parents[2]
_PACKAGE = _REPOSITORY / "padrec"
_OUTSIDE = {
    "README.md": "start.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
_API = "reference/api/"
_MERMAID = "assets/mermaid.js"
_LINK = re.compile(r"\[([^\]]*)\]\((?!https?:|#)([^)#\s]+)(#[^)\s]*)?\)")


def on_config(config: MkDocsConfig) -> None:
    """Show the version beside the name, and put all pages into the navigation."""
    config.site_name = f"padrec {padrec.__version__.partition('+')[0]}"
    named = [(title, _pages(entries)) for section in config.nav or [] for title, entries in section.items()]
    known = {page for _, pages in named for page in pages}
    others = sorted({path.name for path in (_REPOSITORY / "docs").glob("*.md")} - known)
    config.nav = [{title: [*pages, *others] if title == "Guides" else pages} for title, pages in named]


def _pages(entries: str | list[str]) -> list[str]:
    """The pages that entries of the navigation stand for."""
    found: list[str] = []
    for entry in [entries] if isinstance(entries, str) else entries:
        folder = _REPOSITORY / "docs" / entry
        if entry == _API:
            found += [f"{_API}{room}.md" for room in _exports_by_room()]
        elif folder.is_dir():
            found += [f"{entry}{path.name}" for path in sorted(folder.glob("*.md"))]
        else:
            found.append(entry)
    return found


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that stand outside docs/, and a page of the API reference for each room."""
    for name, page in _OUTSIDE.items():
        text = (_REPOSITORY / name).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text.replace("# padrec\n", "# Get started\n", 1)))
    for room, names in _exports_by_room().items():
        files.append(File.generated(config, f"{_API}{room}.md", content=_room_page(room, names)))
    for path in sorted((_REPOSITORY / "docs" / "notebooks").glob("*.ipynb")):
        for name, content in _notebook_page(path).items():
            files.append(File.generated(config, f"notebooks/{name}", content=content))
    files.append(File.generated(config, _MERMAID, content=_mermaid()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links lead to pages of the site; what is no part of it, such as configs, keeps its text alone."""
    here = page.file.src_uri
    source = next((Path(name) for name, target in _OUTSIDE.items() if target == here), Path("docs", here))

    def rewritten(link: re.Match[str]) -> str:
        text, path, anchor = link[1], os.path.normpath(source.parent / link[2]), link[3] or ""
        target = _OUTSIDE.get(path, path.removeprefix("docs/")).replace(".ipynb", ".md")
        if files.get_file_from_path(target) is None and Path(_REPOSITORY, path).exists():
            return text
        return f"[{text}]({os.path.relpath(target, Path(here).parent)}{anchor})"

    script = os.path.relpath(_MERMAID, Path(here).parent)
    diagrams = f'\n\n<script src="{script}"></script>\n' if "```mermaid" in markdown else ""
    return _LINK.sub(rewritten, markdown) + diagrams


def _notebook_page(path: Path) -> dict[str, str | bytes]:
    """The page of a notebook and the pictures on it, by file name."""
    exporter = MarkdownExporter()  # type: ignore[no-untyped-call]
    text, resources = exporter.from_filename(str(path), resources={"unique_key": path.stem})
    return {f"{path.stem}.md": text, **resources["outputs"]}


def _mermaid() -> bytes:
    """The program that draws diagrams, which the theme would load from elsewhere; a Python package brings it along."""
    spec = find_spec("mermaidx")
    assert spec is not None
    assert spec.origin is not None
    return (Path(spec.origin).parent / "assets" / "mermaid.js").read_bytes()


def _exports_by_room() -> dict[str, dict[str, str]]:
    """For each room its exports and their modules."""
    rooms = {path.parent.name: exported_from(path) for path in sorted(_PACKAGE.glob("*/__init__.py"))}
    public = exported_from(_PACKAGE / "__init__.py")
    alone = {
        name: module for name, module in public.items() if Path(_PACKAGE, f"{module.rpartition('.')[2]}.py").is_file()
    }
    return {room: names for room, names in rooms.items() if room != "cli"} | {"recommender": alone}


def _room_page(room: str, names: dict[str, str]) -> str:
    public = exported_from(_PACKAGE / "__init__.py")
    lines = [f"# padrec.{room}"]
    for title, chosen in (
        ("Exported by padrec", [name for name in sorted(names) if name in public]),
        (f"Further names of padrec.{room}", [name for name in sorted(names) if name not in public]),
    ):
        if chosen:
            lines += [f"## {title}", *(f"::: {names[name]}.{name}" for name in chosen)]
    return "\n\n".join(lines) + "\n"
