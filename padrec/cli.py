"""The command line: `padrec prepare|fit|validate|test|predict --config …`."""

import os
import signal
import sys
from pathlib import Path
from pydoc import locate
from typing import Any, NoReturn

from jsonargparse import Namespace
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf.errors import OmegaConfBaseException

import padrec  # noqa: F401  # short class names in configs resolve among what is imported
from padrec.catalog import InputError
from padrec.data import Preparation
from padrec.targets import TargetRecommender
from padrec.training import read_checkpoint

# Resolves ${…} last, overrides included.
_PARSER_MODE = "omegaconf+"
_PREPARE = "prepare"
_EPILOG = "`padrec prepare --help`: from raw interaction logs to a folder that PreparedReader reads."
_LINKS = ("vocabulary", "catalog", "list_length", "dimension")


class PadrecCLI(LightningCLI):
    """A LightningCLI whose data hands its vocabulary, catalog and sizes to the model."""

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse, and look at the checkpoint before its class and hyperparameters win over the config's."""
        super().parse_arguments(parser, args)
        chosen = self.config[self.config.subcommand]
        if chosen.get("ckpt_path"):
            _check_checkpoint(chosen.ckpt_path, chosen.model.class_path)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Link what the datamodule knows to the models that ask for it; others are left alone."""
        for name in _LINKS:
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")

    def before_instantiate_classes(self) -> None:
        """Name the initial weights of a target's checkpoint, which holds primitives, as a config names them."""
        subcommand = self.config.subcommand
        model = self.config[subcommand].model
        stored = model.pop("dict_kwargs", {})  # those of a checkpoint's hyperparameters that are no arguments
        if locate(model.class_path) is TargetRecommender and stored:
            start = TargetRecommender.stored_initial_weights(stored)
            chosen = {"class_path": model.class_path, "init_args": {"initial_weights": start}}
            self.config = self.parser.parse_object({subcommand: {"model": chosen}}, self.config)

    def before_predict(self) -> None:
        """Keep predictions from piling up in memory: `RecommendationWriter` takes them as they come."""
        self.config_init["predict"]["return_predictions"] = False


def main(args: ArgsType = None) -> None:
    """Run the program.

    Args:
        args: command-line arguments; None takes the process's own.

    Raises:
        SystemExit: status 2 after one message for wrong input, 143 after a SIGTERM.
    """
    arguments = sys.argv[1:] if args is None else args
    try:
        if isinstance(arguments, list) and arguments[:1] == [_PREPARE]:
            _prepare(arguments[1:])
        else:
            _train_or_evaluate(args)
    except SIGTERMException:  # a SystemExit of status 0: a script would go on as if the work were done
        raise SystemExit(128 + signal.SIGTERM) from None
    except OmegaConfBaseException as error:  # some of them are ValueErrors too
        _fail(_unresolved(error))
    except ValueError as error:
        wrong_input = _wrong_input(error)
        if wrong_input is None:
            raise
        _fail(str(wrong_input))


def _train_or_evaluate(args: ArgsType) -> None:
    """The subcommands that need a trainer, a model and data."""
    PadrecCLI(
        parser_class=_Parser,
        subclass_mode_model=True,
        subclass_mode_data=True,
        save_config_callback=_SaveConfig,
        save_config_kwargs={"overwrite": True},
        auto_configure_optimizers=False,
        parser_kwargs={"parser_mode": _PARSER_MODE, "epilog": _EPILOG},
        args=args,
    )


def _prepare(arguments: list[str]) -> None:
    """The subcommand that needs none of them: raw logs to a prepared folder."""
    about, _, _ = (Preparation.__doc__ or "").partition("Args:")
    parser = _Parser(prog=f"padrec {_PREPARE}", description=about, parser_mode=_PARSER_MODE)
    parser.add_argument("-c", "--config", action="config", help="Path to a configuration file in json or yaml format.")
    parser.add_class_arguments(Preparation, as_group=False)
    settings = parser.instantiate_classes(parser.parse_args(arguments))
    settings.pop("config")
    Preparation(**settings).run()


class _SaveConfig(SaveConfigCallback):
    """Puts the resolved config beside what the logger writes; without a logger it would replace one in this folder."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if trainer.loggers:
            super().setup(trainer, pl_module, stage)


class _Parser(LightningArgumentParser):
    """Reports a wrong argument or config as one message: the usage, a page long, would bury it."""

    _config_file: str | os.PathLike[str] | None = None  # the one being read

    def parse_path(self, path: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Namespace:
        """Read a config file, which a message about it will name: several may be given."""
        self._config_file = path
        try:
            config: Namespace = super().parse_path(path, *args, **kwargs)
            return config
        finally:
            self._config_file = None

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if self._config_file is not None:
            message = f"{os.fspath(self._config_file)}: {message}"
        if not self.exit_on_error:
            super().error(message, ex)
        _fail(message)


def _fail(message: str) -> NoReturn:
    print(f"padrec: error: {message}", file=sys.stderr)
    raise SystemExit(2)


def _check_checkpoint(path: str, model: str) -> None:
    """Refuse a checkpoint that the model of the config cannot go on from.

    Args:
        path: of `--ckpt_path`.
        model: class path of the config's model.

    Raises:
        InputError: nothing is there, or it is no checkpoint of this class that the command line has saved.
    """
    if path in ("best", "last", "hpc", "registry") or ":" in path:  # what Lightning itself finds, and addresses
        return
    if (Path(path) / "config.json").is_file():
        raise InputError(f"{path}: a folder written by save_pretrained, expected a Lightning checkpoint")
    if Path(path).is_dir():  # the shards of a strategy
        return
    found = read_checkpoint(Path(path)).get("hyper_parameters", {}).get("_class_path")
    if found is None:
        raise InputError(f"{path}: expected a checkpoint saved by `padrec fit`, which names its class")
    if locate(found) is not locate(model):
        raise InputError(f"{path}: a checkpoint of {found}, expected one of the config's model {model}")


def _unresolved(error: OmegaConfBaseException) -> str:
    """What is wrong with a ${…} of a config, and where it stands."""
    problem, _, _ = str(error).partition("\n")  # the lines behind it repeat the place
    _, _, problem = problem.rpartition("raised while resolving interpolation: ")
    problem = problem.strip('"')
    place = f"{error.full_key}: " if error.full_key else ""
    return (
        f"{place}{problem}, expected an interpolation that can be resolved, as ${{oc.env:NAME}}, "
        "${oc.env:NAME,default} or ${key.of.this.config}"
    )


def _wrong_input(error: BaseException | None) -> InputError | None:
    """The wrong input behind an error: the parser wraps what a constructor raises in errors of its own."""
    while error is not None and not isinstance(error, InputError):
        error = error.__cause__ or error.__context__
    return error
