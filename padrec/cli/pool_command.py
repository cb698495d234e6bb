"""The commands that make a pool of what a target wrote before: lists, or texts."""

from collections.abc import Callable

from padrec.cli.configured_command import call_configured
from padrec.evaluation import PoolBuilder, TextPoolBuilder


def pool(command: str, arguments: list[str]) -> None:
    """Run `padrec pool` or `padrec text-pool` with these arguments."""
    builder: Callable[..., PoolBuilder | TextPoolBuilder] = PoolBuilder if command == "pool" else TextPoolBuilder
    call_configured(command, builder, arguments, sub_configs=True).run()
