"""The commands that need a trainer, a model and data: `padrec fit|validate|test|predict`."""

import math
import signal
from pydoc import locate
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import SIGTERMException

from padrec.catalog import InputError
from padrec.cli.callbacks import RunFolder, Termination
from padrec.cli.checks import check_checkpoint, check_monitored, check_saved
from padrec.cli.lightning_messages import hide_unwanted_messages, refused_by_lightning
from padrec.cli.one_message_parser import PARSER_MODE, OneMessageParser
from padrec.training import last_metrics

# Gloo's words when the other end of a connection is gone.
_LOST_PEER = ("Connection closed by peer", "Connection reset by peer")
_LINKS = ("vocabulary", "catalog", "list_length", "prompt_format", "dimension", "language_model")
# What a model defines for each command. Prediction has a default of Lightning's, which calls the model.
_STEPS = {"fit": "training_step", "validate": "validation_step", "test": "test_step", "predict": "predict_step"}


class PadrecCLI(LightningCLI):
    """A LightningCLI whose data hands its vocabulary, catalog and sizes to the model."""

    def __init__(self, args: ArgsType, **settings: Any) -> None:
        self._args = args
        super().__init__(args=args, **settings)

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # Lightning's does not know the arguments
        """The command that the arguments begin with, since a parser takes long to make; all where there is none."""
        commands = LightningCLI.subcommands()
        command = self._args[0] if isinstance(self._args, list) and self._args else None
        return {command: commands[command]} if command in commands else commands

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse, and look at the checkpoint before its class and hyperparameters win over the config's."""
        super().parse_arguments(parser, args)
        chosen = self.config[self.config.subcommand]
        _check_command(self.config.subcommand, chosen.model.class_path)
        _check_numbers(chosen)
        path = chosen.get("ckpt_path")
        if path and not (path == "last" and self.config.subcommand == "fit"):  # which Lightning finds in its folder
            check_checkpoint(path, chosen.model.class_path, self._given_settings(parser, args))

    def _given_settings(self, parser: LightningArgumentParser, args: ArgsType) -> dict[str, Any]:
        """The model's arguments as the user gives them, without defaults."""
        if isinstance(args, dict | Namespace):
            given = parser.parse_object(args, defaults=False)
        else:
            given = parser.parse_args(args, defaults=False)
        settings: Namespace | None = given[self.config.subcommand].model.get("init_args")
        return {} if settings is None else settings.as_dict()

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Link what the datamodule knows to the models that ask for it; others are left alone."""
        for name in _LINKS:
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")

    def before_instantiate_classes(self) -> None:
        """Name the initial weights of a target's checkpoint, which holds primitives, as a config names them."""
        subcommand = self.config.subcommand
        model = self.config[subcommand].model
        stored = model.pop("dict_kwargs", {})  # those of a checkpoint's hyperparameters that are no arguments
        if not stored:
            return
        from padrec.targets import TargetRecommender  # imports of its own, which other models do without

        if locate(model.class_path) is TargetRecommender:
            start = TargetRecommender.stored_initial_weights(stored)
            chosen = {"class_path": model.class_path, "init_args": {"initial_weights": start}}
            self.config = self.parser.parse_object({subcommand: {"model": chosen}}, self.config)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Make the trainer; what Lightning refuses, in errors of many classes, becomes an InputError."""
        try:
            return super().instantiate_trainer(**kwargs)
        except Exception as error:
            settings = self.config[self.config.subcommand].trainer
            named = ", ".join(f"{name}: {settings[name]}" for name in ("accelerator", "devices", "strategy"))
            raise InputError(f"trainer ({named}): {error}") from error

    def before_fit(self) -> None:
        """Refuse callbacks that would wait in vain."""
        check_monitored(self.trainer, self.model)

    def after_fit(self) -> None:
        """Report a checkpoint that is missing; print the metrics, of which a narrow progress bar shows a part."""
        check_saved(self.trainer)
        if self.trainer.is_global_zero:
            print(", ".join(f"{name} {value:.4g}" for name, value in last_metrics(self.trainer).items()))

    def before_validate(self) -> None:
        """Refuse random weights."""
        self._check_trained()

    def before_test(self) -> None:
        """Refuse random weights; an evaluation prints a table of its own."""
        self._check_trained()
        self.config_init["test"]["verbose"] = not getattr(self.model, "prints_results", False)

    def before_predict(self) -> None:
        """Refuse random weights and predictions that nothing writes; a writer takes them as they come."""
        self._check_trained()
        if not any(_writes(callback) for callback in self.trainer.callbacks):  # type: ignore[attr-defined]
            found = "predictions that no callback of the trainer writes"
            raise InputError(f"{found}: expected one such as padrec.RecommendationWriter in trainer.callbacks")
        self.config_init["predict"]["return_predictions"] = False

    def _check_trained(self) -> None:
        random = getattr(self.model, "starts_random", False)  # other models have nothing to load
        if random and not self.config[self.config.subcommand].get("ckpt_path"):
            found = f"{self.config.subcommand} of a {type(self.model).__name__} with random weights"
            raise InputError(f"{found}: expected --ckpt_path with a checkpoint of `padrec fit`")


def train_or_evaluate(args: ArgsType) -> None:
    """Run one of these commands; wrong input that Lightning notices and a lost process become an InputError."""
    hide_unwanted_messages()
    try:
        PadrecCLI(
            parser_class=_Parser,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=RunFolder,
            trainer_defaults={"callbacks": [Termination()], "enable_model_summary": False},
            auto_configure_optimizers=False,
            parser_kwargs={"parser_mode": PARSER_MODE},
            args=args,
        )
    except Exception as error:
        if isinstance(error, RuntimeError) and any(words in str(error) for words in _LOST_PEER):
            # A traceback of this process would bury the message that says why.
            raise InputError("another process of this run has failed, see its own message") from None
        refusal = refused_by_lightning(error)
        if refusal is None:
            raise
        raise InputError(refusal) from error
    except SIGTERMException:  # a SystemExit of status 0: a script would go on as if the work were done
        raise SystemExit(128 + signal.SIGTERM) from None


class _Parser(OneMessageParser, LightningArgumentParser):
    """Lightning's parser with `OneMessageParser`'s messages."""


def _writes(callback: Callback) -> bool:
    """Whether a callback may keep predictions: all but Lightning's own, which show or count them."""
    if isinstance(callback, BasePredictionWriter):
        return True
    names = ("on_predict_batch_end", "on_predict_epoch_end", "on_predict_end")
    own = any(getattr(type(callback), name) is not getattr(Callback, name) for name in names)
    return own and not type(callback).__module__.startswith("lightning.")


def _check_command(command: str, model: str) -> None:
    """Refuse a command that the model, a class path, does not take part in."""
    found = locate(model)
    takes_part = [
        name for name, step in _STEPS.items() if getattr(found, step, None) is not getattr(LightningModule, step)
    ]
    if isinstance(found, type) and command not in takes_part:
        commands = ", ".join(f"`padrec {name}`" for name in takes_part) or "a model with steps"
        raise InputError(f"{command} of a {found.__name__}, which has no {_STEPS[command]}: expected {commands}")


def _check_numbers(chosen: Namespace) -> None:
    """Refuse numbers that Lightning divides by or trains with unchecked."""
    for name, value in chosen.trainer.as_dict().items():
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"trainer.{name} is {value}, expected a finite number")
        if name in ("accumulate_grad_batches", "check_val_every_n_epoch") and value is not None and value < 1:
            raise InputError(f"trainer.{name} is {value}, expected at least 1")
    if not 0 <= chosen.seed_everything < 2**32:  # a bool, too
        raise InputError(f"seed_everything is {chosen.seed_everything}, expected 0 … {2**32 - 1}")
