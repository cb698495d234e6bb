"""The command that makes a pool of what a target wrote before."""

from padrec.cli.one_message_parser import PARSER_MODE, OneMessageParser
from padrec.evaluation import PoolBuilder


def pool(arguments: list[str]) -> None:
    """Run `padrec pool` with these arguments."""
    about, _, _ = (PoolBuilder.__doc__ or "").partition("Args:")
    parser = OneMessageParser(prog="padrec pool", description=about, parser_mode=PARSER_MODE)
    parser.add_argument("-c", "--config", action="config", help="Path to a configuration file in json or yaml format.")
    parser.add_class_arguments(PoolBuilder, as_group=False)
    settings = parser.instantiate_classes(parser.parse_args(arguments))
    settings.pop("config")
    PoolBuilder(**settings).run()
