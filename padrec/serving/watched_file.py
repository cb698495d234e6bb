"""A file or folder that others replace while it is read again and again."""

from pathlib import Path


class WatchedFile:
    """Tells when a file, or a folder of files, has been replaced; links are followed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: object = None

    def changed(self) -> bool:
        """Whether it has changed since the last call; True at the first call."""
        now = self._state()
        changed, self._seen = now != self._seen, now
        return changed

    def _state(self) -> object:
        try:
            files = sorted(self.path.iterdir()) if self.path.is_dir() else [self.path]
            return [(str(file.resolve()), *_stamp(file)) for file in files]
        except OSError as error:
            return str(error)


def _stamp(file: Path) -> tuple[int, ...]:
    stat = file.stat()
    return stat.st_ino, stat.st_mtime_ns, stat.st_size
