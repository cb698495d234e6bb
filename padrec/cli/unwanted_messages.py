"""Messages of Lightning that are not meant for those who run `padrec`."""

import logging
import warnings

# About how this program calls Lightning, how Lightning calls PyTorch, and the frozen target of every draft.
_WARNINGS = (
    "LightningCLI's args parameter",
    r"`isinstance\(treespec, LeafSpec\)`",
    r"Found \d+ module\(s\) in eval mode",
)
# Advertisements of other packages begin like this.
_ADVERTISEMENT = "💡 Tip"


def hide_unwanted_messages() -> None:
    """Hide them in this process."""
    for message in _WARNINGS:
        warnings.filterwarnings("ignore", message)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_is_no_advertisement)


def _is_no_advertisement(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_ADVERTISEMENT)
