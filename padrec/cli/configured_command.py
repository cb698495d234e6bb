"""Commands whose options are the arguments of a class or function."""

from collections.abc import Callable
from typing import TypeVar

from padrec.cli.one_message_parser import PARSER_MODE, OneMessageParser

T = TypeVar("T")


def call_configured(command: str, called: Callable[..., T], arguments: list[str], **options: bool) -> T:
    """Call a class or function with the arguments of a command line and of its config files.

    Its docstring describes the command and its options. Further options are the parser's, for `add_class_arguments`.
    """
    about, _, _ = (called.__doc__ or "").partition("Args:")
    parser = OneMessageParser(prog=f"padrec {command}", description=about, parser_mode=PARSER_MODE)
    parser.add_argument("-c", "--config", action="config", help="Path to a configuration file in json or yaml format.")
    add: Callable[..., object] = (
        parser.add_class_arguments if isinstance(called, type) else parser.add_function_arguments
    )
    add(called, as_group=False, **options)
    settings = parser.instantiate_classes(parser.parse_args(arguments))
    settings.pop("config")
    return called(**settings)
