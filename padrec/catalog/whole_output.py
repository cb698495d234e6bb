"""Files and folders that appear as a whole or not at all, and digests that tell later whether they still are whole."""

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from padrec.catalog.errors import InputError

PARTIAL = ".partial"  # ends the names of files and folders that are not whole
DIGESTS = "padrec.sha256"
"""In a folder that was written as a whole: a line for each file, as `sha256sum --check` reads it.

Not `SHA256SUMS`: folders of other programs may hold one, of files that are not all there.
"""


@contextmanager
def written_whole(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """Write a file or folder as a whole or not at all, one process at a time.

    Gives another path, to be written as a file or made as a folder; it gets its own name in the end. A folder also gets
    `padrec.sha256`. Missing folders on the way are made. What a killed process leaves is `<path>.partial`, which the
    next one clears.

    Raises:
        InputError: something other than an empty folder is there already and not to be overwritten, another process is
            writing it, or it cannot be written.
    """
    place = Path(os.path.abspath(path))  # `.` has no name
    workplace = place.with_name(place.name + PARTIAL)
    part = workplace / place.name
    if not overwrite:
        check_absent(path)
    with writing(path):
        workplace.mkdir(parents=True, exist_ok=True)
        with locked(workplace):
            try:
                for left in workplace.iterdir():
                    shutil.rmtree(left) if left.is_dir() else left.unlink()
                yield part
                if part.is_dir():
                    write_digests(part)
                if not overwrite:  # another process may have been faster
                    check_absent(path)
                os.replace(part, place)
            finally:
                shutil.rmtree(workplace, ignore_errors=True)


def check_absent(path: Path) -> None:
    """Refuse a path where something other than an empty folder is."""
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        expected = "nothing or an empty folder" if path.is_dir() else "no such file"
        raise InputError(f"{path}: there already, expected {expected}: move it away or name another")


def check_place(path: Path) -> None:
    """Refuse a file or folder that is there already or cannot be written, before any long work starts."""
    check_absent(path)
    nearest = next(folder for folder in path.absolute().parents if folder.exists())
    with writing(path), tempfile.TemporaryFile(dir=nearest):
        pass


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an error of the operating system into an InputError: this path cannot be written."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from None
    except SafetensorError as error:  # what safetensors makes of an OSError
        raise InputError(f"{path}: cannot be written ({error})") from None


@contextmanager
def locked(path: Path, wait: bool = False) -> Iterator[None]:
    """Keep other processes away from a file or folder that exists; the lock ends with the process, however that ends.

    Where another process has it, waits or raises an InputError.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise InputError(f"{path}: another process is writing it, expected one at a time") from None
    finally:
        os.close(handle)


def write_digests(folder: Path) -> None:
    """Write the SHA-256 of every file of a folder to `padrec.sha256`."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    lines = [f"{_digest(folder / name)}  {name}\n" for name in names if name != DIGESTS]
    (folder / DIGESTS).write_text("".join(lines), encoding="utf-8")


def check_digests(folder: Path) -> None:
    """Refuse a folder whose files are no longer what was written; a folder without digests passes."""
    file = folder / DIGESTS
    if not file.is_file():
        return
    lines = file.read_bytes().decode("utf-8", "replace").splitlines()
    for expected, _, name in (line.partition("  ") for line in lines):
        if not (folder / name).is_file():
            raise InputError(f"{folder}: no {name}, expected every file that {DIGESTS} names")
        if _digest(folder / name) != expected:
            raise InputError(
                f"{folder / name}: not what was written, expected SHA-256 {expected[:16]}… as in {DIGESTS}: write it "
                f"again, or delete {DIGESTS} if the change is meant"
            )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
