"""A parser that reports a wrong argument or config as one message."""

import os
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, Namespace, set_parsing_settings

from padrec.cli.parser_message import readable, unknown_option

# Resolves ${…} last, overrides included.
PARSER_MODE = "omegaconf+"
# ${key} counts from the top of its file, so that one config serves several commands.
set_parsing_settings(omegaconf_absolute_to_relative_paths=True)


class WrongArguments(SystemExit):
    """Wrong arguments or a wrong config; not an `Exception`, which the parser would wrap in others of its own."""


class OneMessageParser(ArgumentParser):
    """Raises a wrong argument or config as one message: the usage, a page long, would bury it."""

    _config_file: str | os.PathLike[str] | None = None  # the one being read

    def parse_path(self, path: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Namespace:
        """Read a config file, which a message about it will name: several may be given."""
        self._config_file = path
        try:
            config: Namespace = super().parse_path(path, *args, **kwargs)
        except UnicodeDecodeError as error:
            self.error(f"byte {error.start} is not UTF-8, expected a config in YAML", error)
        finally:
            self._config_file = None
        self._configs = {**getattr(self, "_configs", {}), os.fspath(path): config}
        return config

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise the message, with the config file that it is about.

        Raises:
            WrongArguments: always, unless the parser itself tries something else next.
        """
        if not self.exit_on_error:
            super().error(message, ex)
        parser = getattr(ex, "subcommand_parser", None) or self
        file = self._config_file
        if unknown := unknown_option(message):  # in a config that was read before all were put together
            configs = getattr(parser, "_configs", {})
            file = next((path for path, config in configs.items() if unknown in config), file)
        message = readable(message, parser._option_string_actions)
        raise WrongArguments(message if file is None else f"{os.fspath(file)}: {message}")
