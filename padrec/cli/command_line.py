"""The program's entry: finds the command, and reports wrong input as one message."""

import os
import sys
from collections.abc import Callable
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, NoReturn

from omegaconf.errors import OmegaConfBaseException

import padrec
from padrec.catalog import InputError
from padrec.cli.one_message_parser import WrongArguments, call_configured

if TYPE_CHECKING:
    from lightning.pytorch.cli import ArgsType

_HELP = """\
usage: padrec COMMAND --config FILE [--config OVERLAY …] [--KEY VALUE …]

Lossless speculative decoding for generative recommenders.

commands:
  prepare    from raw interaction logs to a folder that PreparedReader reads
  fit        train a target, a draft or a quantizer
  validate   validate one
  test       compare decoders side by side, or test a target
  predict    write recommendations, texts or semantic IDs to a file
  report     put reports of `test` into one table and one figure
  pool       make a pool of lists that a target wrote, for drafts that retrieve
  text-pool  make a pool of texts that a language model wrote
  export     put a recommender into one folder: target, draft, catalog, settings and model card
  serve      answer requests for recommendations over HTTP (needs the extra `serve`)
  experiments
             list the experiments that come with padrec, or copy one

Help on a command: padrec prepare --help, padrec fit --help and so on. padrec --version prints the version.
"""
_TRAINER_COMMANDS = ("fit", "validate", "test", "predict")
_WITHOUT_CLASSES = ("report", "export", "serve", "experiments")  # each is a function of `<command>_command.py`
_COMMANDS = ("prepare", *_TRAINER_COMMANDS, "report", "pool", "text-pool", "export", "serve", "experiments")


def main(args: "ArgsType" = None) -> None:
    """Run the program with these arguments or, if None, those of the process.

    Raises:
        SystemExit: status 2 after one message for wrong input or files that the system refuses, 143 after a SIGTERM.
    """
    arguments = sys.argv[1:] if args is None else args
    if arguments in (["-h"], ["--help"]):
        print(_HELP, end="")
        raise SystemExit(0)
    if arguments == ["--version"]:
        print(f"padrec {padrec.__version__}")
        raise SystemExit(0)
    try:
        _run_with_short_names(arguments)
    except WrongArguments as error:
        _fail(str(error))
    except OmegaConfBaseException as error:  # some of them are ValueErrors too
        _fail(_unresolved(error))
    except ValueError as error:
        wrong_input = _wrong_input(error)
        if wrong_input is None:
            raise
        _fail(str(wrong_input))
    except OSError as error:  # no permission, a full disk, too few handles
        place = f"{error.filename}: " if error.filename else ""
        _fail(f"{place}{error.strerror or error}, expected files that can be read and written")


def _run_with_short_names(arguments: "ArgsType") -> None:
    """Run a command; short class names resolve among all exports of padrec.

    Only imported classes are found by their short names and listed in help. Most configs give full names, so all
    classes are imported only for help, and for another try where an argument was refused.
    """
    if isinstance(arguments, list) and arguments and arguments[0] in _WITHOUT_CLASSES:
        _run(arguments)
        return
    if isinstance(arguments, list) and any(word == "-h" or word.endswith("help") for word in arguments):
        _import_all()
    try:
        _run(arguments)
    except WrongArguments:
        _import_all()
        _run(arguments)


def _run(arguments: "ArgsType") -> None:
    # Each command imports what it needs: `prepare` needs neither PyTorch nor Lightning.
    command, others = (arguments[0], arguments[1:]) if isinstance(arguments, list) and arguments else ("", [])
    if command == "prepare":
        call_configured(command, padrec.Preparation, others).run()
    elif command == "pool":
        call_configured(command, padrec.PoolBuilder, others, sub_configs=True).run()
    elif command == "text-pool":
        call_configured(command, padrec.TextPoolBuilder, others, sub_configs=True).run()
    elif command in _WITHOUT_CLASSES:
        run: Callable[[list[str]], None] = getattr(import_module(f"padrec.cli.{command}_command"), command)
        run(others)
    elif isinstance(arguments, list) and not command.startswith("-") and command not in _TRAINER_COMMANDS:
        near = get_close_matches(command, _COMMANDS, n=1)
        guess = f"; did you mean {near[0]!r}?" if near else ""
        found = f"command {command!r}" if command else "no command"
        raise InputError(f"{found}: expected one of {', '.join(_COMMANDS)}{guess}")
    else:
        from padrec.cli.lightning_program import train_or_evaluate

        train_or_evaluate(arguments)


def _import_all() -> None:
    for name in dir(padrec):
        getattr(padrec, name)


def _fail(message: str) -> NoReturn:
    process = os.environ.get("LOCAL_RANK", "0")  # set where a run has several processes
    print(f"padrec: error: {'' if process == '0' else f'process {process}: '}{message}", file=sys.stderr)
    raise SystemExit(2)


def _unresolved(error: OmegaConfBaseException) -> str:
    """What is wrong with a ${…} of a config, and where it is."""
    problem, _, _ = str(error).partition("\n")  # the lines after it repeat the place
    _, _, problem = problem.rpartition("raised while resolving interpolation: ")
    problem = problem.strip('"')
    place = f"{error.full_key}: " if error.full_key else ""
    return (
        f"{place}{problem}, expected an interpolation that can be resolved, as ${{oc.env:NAME}}, "
        "${oc.env:NAME,default} or ${key.of.this.file}"
    )


def _wrong_input(error: BaseException | None) -> InputError | None:
    """The wrong input behind an error: the parser wraps what a constructor raises in errors of its own."""
    while error is not None and not isinstance(error, InputError):
        error = error.__cause__ or error.__context__
    return error
