"""What identifies the files that were read."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from padrec.data.logs.text_lines import open_binary


def fingerprint(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """Name, size in bytes and SHA-256 of each file; its folder does not matter.

    Raises:
        InputError: a file is missing or cannot be read.
    """
    found: list[dict[str, Any]] = []
    for path in paths:
        with open_binary(path) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            found.append({"name": path.name, "bytes": file.tell(), "sha256": digest})
    return found
