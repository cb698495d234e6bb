"""The commands that make a pool of what a target wrote before: lists, or texts."""

from padrec.cli.one_message_parser import PARSER_MODE, OneMessageParser
from padrec.evaluation import PoolBuilder, TextPoolBuilder


def pool(command: str, arguments: list[str]) -> None:
    """Run `padrec pool` or `padrec text-pool` with these arguments."""
    builder: type[PoolBuilder | TextPoolBuilder] = PoolBuilder if command == "pool" else TextPoolBuilder
    about, _, _ = (builder.__doc__ or "").partition("Args:")
    parser = OneMessageParser(prog=f"padrec {command}", description=about, parser_mode=PARSER_MODE)
    parser.add_argument("-c", "--config", action="config", help="Path to a configuration file in json or yaml format.")
    parser.add_class_arguments(builder, as_group=False, sub_configs=True)
    settings = parser.instantiate_classes(parser.parse_args(arguments))
    settings.pop("config")
    builder(**settings).run()
