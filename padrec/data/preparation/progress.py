"""What a long preparation is doing."""

import sys
import time

_SECONDS_BETWEEN_LINES = 5.0


class Progress:
    """Writes lines to stderr: when a stage starts, every few seconds within it, and when it ends.

    Args:
        stage: name of the stage.
    """

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self._start = time.monotonic()
        self._next = self._start + _SECONDS_BETWEEN_LINES
        say(stage, "started")

    def update(self, state: str) -> None:
        """Say how far it is, unless something was said just now."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _SECONDS_BETWEEN_LINES
            say(self.stage, f"{state} ({now - self._start:.0f} s)")

    def end(self, result: str) -> None:
        """Say what came out."""
        say(self.stage, f"{result} ({time.monotonic() - self._start:.1f} s)")


def say(stage: str, text: str) -> None:
    """Write one line to stderr."""
    print(f"padrec prepare: {stage}: {text}", file=sys.stderr, flush=True)
