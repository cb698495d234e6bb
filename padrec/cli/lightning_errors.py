"""Errors by which Lightning refuses what it is given."""

import traceback

from lightning.fabric.utilities.exceptions import MisconfigurationException

from padrec.catalog import InputError

# Lightning refuses settings by any of these. Others, and errors of code that it calls, are bugs: they keep a traceback.
_REFUSALS = (MisconfigurationException, ValueError, RuntimeError, ImportError)


def refused_by_lightning(error: BaseException | None) -> str | None:
    """The message of a refusal that Lightning itself raised; None for any other error.

    Args:
        error: the refusal, or an error that a parser raised from it.
    """
    while error is not None and not isinstance(error, InputError):
        if isinstance(error, _REFUSALS) and _raised_in(error).startswith("lightning."):
            return " ".join(str(error).split())
        error = error.__cause__
    return None


def _raised_in(error: BaseException) -> str:
    """The module whose code raised an error."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return str(frames[-1].f_globals.get("__name__", "")) if frames else ""
