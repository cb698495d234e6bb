"""What a long preparation is doing."""

import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType

_SECONDS_BETWEEN_LINES = 5.0


class Progress:
    """Writes lines to stderr: when a stage starts, every few seconds until it ends, and when it ends.

    Args:
        stage: name of the stage.
        percent: how far the running query is, 0 to 100; None where that is unknown.
    """

    def __init__(self, stage: str, percent: Callable[[], float | None] = lambda: None) -> None:
        self.stage = stage
        self.state = "at work"
        self._percent = percent
        self._start = time.monotonic()
        self._ended = threading.Event()
        self._reporter = threading.Thread(target=self._report, daemon=True)

    def __enter__(self) -> "Progress":
        say(self.stage, "started")
        self._reporter.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._reporter.join()
        if error is None:
            say(self.stage, f"{self.state} ({time.monotonic() - self._start:.1f} s)")

    def _report(self) -> None:
        while not self._ended.wait(_SECONDS_BETWEEN_LINES):
            percent = self._percent()
            share = "" if percent is None else f", {percent:.0f} % of this query"
            say(self.stage, f"{self.state}{share} ({time.monotonic() - self._start:.0f} s)")


def say(stage: str, text: str) -> None:
    """Write one line to stderr."""
    print(f"padrec prepare: {stage}: {text}", file=sys.stderr, flush=True)
