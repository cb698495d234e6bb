"""The command that needs no trainer, model or data: raw logs to a prepared folder."""

from padrec.cli.one_message_parser import PARSER_MODE, OneMessageParser
from padrec.data import Preparation


def prepare(arguments: list[str]) -> None:
    """Run `padrec prepare` with these arguments."""
    about, _, _ = (Preparation.__doc__ or "").partition("Args:")
    parser = OneMessageParser(prog="padrec prepare", description=about, parser_mode=PARSER_MODE)
    parser.add_argument("-c", "--config", action="config", help="Path to a configuration file in json or yaml format.")
    parser.add_class_arguments(Preparation, as_group=False)
    settings = parser.instantiate_classes(parser.parse_args(arguments))
    settings.pop("config")
    Preparation(**settings).run()
