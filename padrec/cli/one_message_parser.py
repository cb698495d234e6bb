"""A parser that reports a wrong argument or config as one message."""

import os
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, Namespace

# Resolves ${…} last, overrides included.
PARSER_MODE = "omegaconf+"


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
            return config
        except UnicodeDecodeError as error:
            self.error(f"byte {error.start} is not UTF-8, expected a config in YAML", error)
        finally:
            self._config_file = None

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise the message, with the config file that it is about.

        Raises:
            WrongArguments: always, unless the parser itself tries something else next.
        """
        if self._config_file is not None:
            message = f"{os.fspath(self._config_file)}: {message}"
        if not self.exit_on_error:
            super().error(message, ex)
        raise WrongArguments(message)
