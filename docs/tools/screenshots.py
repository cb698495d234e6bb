"""Takes the pictures in docs/screenshots/ with Chromium:

    python docs/tools/screenshots.py

Needs what `make docs`, `make quickstart` and `padrec export` as in docs/serving.md write.
"""

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

_REPOSITORY = Path(__file__).parents[2]
_FOLDER = _REPOSITORY / "docs" / "screenshots"
_SITE = {"site-home": "index.html", "site-method": "methods/padrec.html", "site-api": "reference/api/decoding.html"}
_BOARD = {"tensorboard-images": "#images", "tensorboard-text": "#text", "tensorboard-curves": "#custom_scalars"}
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--virtual-time-budget=20000",  # milliseconds of the page's own clock, so that charts are drawn
)


def take(name: str, url: str, size: tuple[int, int] = (1400, 1000)) -> None:
    """Write `docs/screenshots/<name>.png` in 128 colours, which keeps it small."""
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder, "picture.png")
        options = [f"--user-data-dir={folder}", f"--window-size={size[0]},{size[1]}", f"--screenshot={picture}"]
        browser = shutil.which("chromium") or shutil.which("google-chrome") or sys.exit("no Chromium on the PATH")
        subprocess.run([browser, *_FLAGS, *options, url], check=True, capture_output=True, timeout=180)
        _FOLDER.mkdir(exist_ok=True)
        Image.open(picture).convert("RGB").quantize(128).save(_FOLDER / f"{name}.png", optimize=True)
    print(f"{name}: {(_FOLDER / f'{name}.png').stat().st_size / 1000:.0f} kB")


@contextmanager
def served(module: str, *arguments: str) -> Iterator[str]:
    """The address of a server on a free port, `{port}` in its arguments, in the repository's root."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", module, *(word.format(port=port) for word in arguments)]
    with subprocess.Popen(command, cwd=_REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            _wait_for(port)
            yield f"http://127.0.0.1:{port}/"
        finally:
            process.terminate()


def _wait_for(port: int) -> None:
    for _ in range(120):
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.5)
    sys.exit("the server did not start within a minute")


def main() -> None:
    with served("http.server", "--directory", "site", "--bind", "127.0.0.1", "{port}") as address:
        for name, path in _SITE.items():
            take(name, address + path)
    board = ("tensorboard.main", "--logdir", "runs/quickstart", "--host", "127.0.0.1", "--port", "{port}")
    with served(*board) as address:
        for name, tab in _BOARD.items():
            take(name, address + tab)
        take("tensorboard-hparams", f"{address}#hparams", (2450, 700))
    with served("padrec", "serve", "runs/quickstart/recommender", "--port", "{port}") as address:
        take("serving", f"{address}?item=item-17&item=item-203&item=item-44", (1100, 1180))


if __name__ == "__main__":
    main()
