"""The command that needs no trainer, model or data: raw logs to a prepared folder."""

from padrec.cli.configured_command import call_configured
from padrec.data import Preparation


def prepare(arguments: list[str]) -> None:
    """Run `padrec prepare` with these arguments."""
    call_configured("prepare", Preparation, arguments).run()
