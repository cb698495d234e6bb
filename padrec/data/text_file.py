"""Text files as people hand them over: whole, or line by line where they are large."""

import ast
import gzip
import zlib
from collections.abc import Iterator
from io import BufferedReader, TextIOWrapper
from pathlib import Path

from padrec.catalog import InputError

_GZIP_MAGIC = b"\x1f\x8b"


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, without a byte-order mark; another file, or none, is an InputError."""
    with open_binary(path) as file:
        try:
            return TextIOWrapper(file, encoding="utf-8-sig").read()
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: byte {error.start} is not UTF-8, expected a UTF-8 text file") from None


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbers, from 1, and contents of the lines that are not blank, of a whole UTF-8 file, compressed by gzip or not.

    Another file, or none, is an InputError.
    """
    compressed = is_gzipped(path)
    number = 0
    try:
        with open_binary(path) as raw, gzip.open(raw) if compressed else raw as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}, line {number}: byte {error.start} is not UTF-8, expected UTF-8 text") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path}: broken after line {number} ({error}), expected a whole gzip file") from None


def python_literal(text: str) -> object:
    """The value of a Python literal such as `['one', 'two']`, without executing it; anything else is a ValueError."""
    try:
        return ast.literal_eval(text)
    except (SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError(str(error)) from None


def is_gzipped(path: Path) -> bool:
    """Whether the content is compressed, whatever the name says: published files are renamed and unpacked in place."""
    with open_binary(path) as file:
        return file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC


def open_binary(path: Path) -> BufferedReader:
    """Open a file to read its bytes as they lie on the disk; one that cannot be read is an InputError."""
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
