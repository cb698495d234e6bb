"""Which messages of Lightning reach those who run `padrec`."""

import logging
import traceback
import warnings

from lightning.fabric.utilities.exceptions import MisconfigurationException

from padrec.catalog import InputError

# About how this program calls Lightning, how Lightning calls PyTorch, and the frozen target of every draft.
_WARNINGS = (
    "LightningCLI's args parameter",
    r"`isinstance\(treespec, LeafSpec\)`",
    r"Found \d+ module\(s\) in eval mode",
)
# Lightning refuses settings by any of these. Others, and errors of code that it calls, are bugs: they keep a traceback.
_REFUSALS = (MisconfigurationException, ValueError, RuntimeError, ImportError)


def hide_unwanted_messages() -> None:
    """Hide warnings about the program's own calls, and advertisements of other packages, in this process."""
    for message in _WARNINGS:
        warnings.filterwarnings("ignore", message)
    messages = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    messages.addFilter(lambda record: not record.getMessage().startswith("💡 Tip"))


def refused_by_lightning(error: BaseException | None) -> str | None:
    """The message of a refusal that Lightning itself raised, also inside a parser's error; None for any other error."""
    while error is not None and not isinstance(error, InputError):
        if isinstance(error, _REFUSALS) and _raised_in(error).startswith("lightning."):
            return " ".join(str(error).split())
        error = error.__cause__
    return None


def _raised_in(error: BaseException) -> str:
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return str(frames[-1].f_globals.get("__name__", "")) if frames else ""
