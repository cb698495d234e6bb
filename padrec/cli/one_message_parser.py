"""A parser that reports a wrong argument or config as one message: what was found, what was expected, and where."""

import inspect
import os
import re
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from pydoc import locate
from typing import Any, NoReturn, TypeVar

from jsonargparse import ArgumentParser, Namespace, set_parsing_settings

T = TypeVar("T")

# Resolves ${…} last, overrides included.
PARSER_MODE = "omegaconf+"
# ${key} counts from the top of its file, so that one config serves several commands.
set_parsing_settings(omegaconf_absolute_to_relative_paths=True)
_KEY = re.compile(r'Parser key "([^"]+)": ?')
_CLASS = re.compile(r"Problem with given class_path '([^']+)': ?")
_TYPE = re.compile(r"Expected an? (.+?)(?:\. Got value: (.*))?$")
_UNKNOWN_OPTION = re.compile(r"[Oo]ption '([^']+)'|unrecognized arguments: -*([^\s=]+)")
_NO_FILE = re.compile(r"Expected a path but (\S+\.(?:yaml|yml|json)) either not accessible")
_NO_CLASS = re.compile(r"module '([^']+)' has no attribute '(\w+)'|Expected a dot import path string: (\S+)")
_UNKNOWN_CLASS = re.compile(r"no class (?:([\w.]+)\.)?(\w+)")
# What jsonargparse says about a union, about the value around the wrong one, and about other forms it might have had.
_NOISE = re.compile(
    r"Does not validate against|Subtypes: |Errors:|Given value|Expected a path but |"
    r"Subclass types expect one of|a (class path|dict) |Expected a <class 'NoneType'>|$"
)


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
        """Raise the message, with the config file that it is about, unless the parser tries something else next."""
        if not self.exit_on_error:
            super().error(message, ex)
        parser = getattr(ex, "subcommand_parser", None) or self
        file = self._config_file
        if unknown := _unknown_option(message):  # in a config that was read before all were put together
            configs = getattr(parser, "_configs", {})
            file = next((path for path, config in configs.items() if unknown in config), file)
        message = _readable(message, parser._option_string_actions)
        raise WrongArguments(message if file is None else f"{os.fspath(file)}: {message}")


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


def _readable(message: str, options: Iterable[str]) -> str:
    """A message of jsonargparse, which may have dozens of lines, as one, with the nearest name to an unknown one."""
    if match := _NO_FILE.search(message):
        return f"{match[1]}: no such file"
    lines = [line.strip().removeprefix("- ") for line in message.splitlines()]
    lines = [line.replace("Not a valid subclass of ", "Expected a ") for line in lines]
    keys, classes = _KEY.findall(message), _CLASS.findall(message)
    said = [rest for line in lines if not _NOISE.match(rest := _CLASS.sub("", _KEY.sub("", line)))]
    said = [_NO_CLASS.sub(lambda match: f"no class {match[3] or f'{match[1]}.{match[2]}'}", line) for line in said]
    # A member of a union that names a mistake, not only a type, is the one that was meant.
    named = [line for line in said if not _TYPE.match(line)]
    problem = "; ".join(dict.fromkeys(named)) or _mismatch(said, lines)
    return ": ".join([*([".init_args.".join(keys)] if keys else []), problem]) + _nearest(problem, classes, options)


def _unknown_option(message: str) -> str | None:
    """The option that a message calls unknown, with its whole key."""
    match = _UNKNOWN_OPTION.search(message)
    return None if match is None else match[1] or match[2]


def _mismatch(said: list[str], lines: list[str]) -> str:
    matches = [match for line in said if (match := _TYPE.match(line))]
    expected = [re.sub(r"<class '(?:\w+\.)*(\w+)'>|typing\.", r"\1", match[1]) for match in matches]
    found = next((match[2] for match in matches if match[2] is not None), None)
    if found is None:
        # A union gives its value once. The innermost one is the last to begin and the first to end.
        found = next((line.removeprefix("Given value: ") for line in lines if line.startswith("Given value: ")), None)
        types = [line for line in lines if line.startswith("Subtypes: ")]
        expected += ["null"] if types and "NoneType" in types[-1] else []
    return f"found {found}, expected {' or '.join(dict.fromkeys(expected))}" if matches else " ".join(lines).strip()


def _nearest(problem: str, classes: list[str], options: Iterable[str]) -> str:
    """Words about the known name that is nearest to an unknown one."""
    if match := _UNKNOWN_CLASS.search(problem):
        name, known = match[2], set(dir(locate(match[1] or "padrec")))
    elif option := _unknown_option(problem):
        name = option.rpartition(".")[2]
        kinds = [kind for path in classes if isinstance(kind := locate(path), type)]
        arguments = {argument for kind in kinds for argument in inspect.signature(kind).parameters}
        known = {option.rpartition(".")[2].lstrip("-") for option in options} | arguments
    else:
        return ""
    near = get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
