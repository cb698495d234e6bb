"""The commands that need a trainer, a model and data: `padrec fit|validate|test|predict`."""

import signal
from pathlib import Path
from pydoc import locate

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from lightning.pytorch.utilities.exceptions import SIGTERMException

from padrec.catalog import InputError
from padrec.cli.one_message_parser import PARSER_MODE, OneMessageParser
from padrec.cli.unwanted_messages import hide_unwanted_messages
from padrec.training import last_metrics, read_checkpoint

_LINKS = ("vocabulary", "catalog", "list_length", "prompt_format", "dimension")


class PadrecCLI(LightningCLI):
    """A LightningCLI whose data hands its vocabulary, catalog and sizes to the model."""

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse, and look at the checkpoint before its class and hyperparameters win over the config's."""
        super().parse_arguments(parser, args)
        chosen = self.config[self.config.subcommand]
        if chosen.get("ckpt_path"):
            if (
                chosen.ckpt_path == "last" and self.config.subcommand == "fit"
            ):  # Lightning looks for it in the fit's own folder
                return
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
        if not stored:
            return
        from padrec.targets import TargetRecommender  # imports of its own, which other models do without

        if locate(model.class_path) is TargetRecommender:
            start = TargetRecommender.stored_initial_weights(stored)
            chosen = {"class_path": model.class_path, "init_args": {"initial_weights": start}}
            self.config = self.parser.parse_object({subcommand: {"model": chosen}}, self.config)

    def after_fit(self) -> None:
        """Print the last metrics, of which a progress bar in a narrow terminal shows a part."""
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
        """Refuse random weights and predictions that nothing writes; a writer takes them as they come.

        Raises:
            InputError: no callback writes, or the weights are random.
        """
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
    """Run one of these commands.

    Raises:
        InputError: another process of the same run has failed.
        SystemExit: status 143 after a SIGTERM.
    """
    hide_unwanted_messages()
    try:
        PadrecCLI(
            parser_class=_Parser,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=_SaveConfig,
            save_config_kwargs={"overwrite": True},
            trainer_defaults={"callbacks": _EndTogether(), "enable_model_summary": False},
            auto_configure_optimizers=False,
            parser_kwargs={"parser_mode": PARSER_MODE},
            args=args,
        )
    except SIGTERMException:  # a SystemExit of status 0: a script would go on as if the work were done
        raise SystemExit(128 + signal.SIGTERM) from None
    except RuntimeError as error:
        if "Connection closed by peer" not in str(error):  # gloo's words
            raise
        # A traceback of this process would bury the message that says why.
        raise InputError("another process of this run has failed, see its own message") from None


class _Parser(OneMessageParser, LightningArgumentParser):
    """Lightning's parser with `OneMessageParser`'s messages."""


class _SaveConfig(SaveConfigCallback):
    """Puts the resolved config beside what the logger writes; without a logger it would replace one in this folder."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if trainer.loggers:
            super().setup(trainer, pl_module, stage)


class _EndTogether(Callback):
    """Ends the processes that this one has started if it fails: they could wait for it for ever."""

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        launcher = trainer.strategy.launcher
        if isinstance(launcher, _SubprocessScriptLauncher):
            launcher.kill(signal.SIGKILL)


def _writes(callback: Callback) -> bool:
    """Whether a callback may keep predictions: all but Lightning's own, which show or count them."""
    if isinstance(callback, BasePredictionWriter):
        return True
    names = ("on_predict_batch_end", "on_predict_epoch_end", "on_predict_end")
    own = any(getattr(type(callback), name) is not getattr(Callback, name) for name in names)
    return own and not type(callback).__module__.startswith("lightning.")


def _check_checkpoint(path: str, model: str) -> None:
    """Refuse a checkpoint that the model of the config cannot go on from.

    Args:
        path: of `--ckpt_path`.
        model: class path of the config's model.

    Raises:
        InputError: nothing is there, or it is no checkpoint of this class that the command line has saved.
    """
    if path in ("best", "last", "hpc"):  # where Lightning finds none, it would go on without
        raise InputError(f"--ckpt_path {path}: expected a file, such as runs/target/checkpoints/{path}.ckpt")
    if ":" in path:  # what Lightning would load with pickle
        raise InputError(f"--ckpt_path {path}: expected a file on this machine; others may hold code")
    if (Path(path) / "config.json").is_file():
        raise InputError(f"{path}: a folder written by save_pretrained, expected a Lightning checkpoint")
    if Path(path).is_dir():  # the shards of a strategy
        return
    found = read_checkpoint(Path(path)).get("hyper_parameters", {}).get("_class_path")
    if found is None:
        raise InputError(f"{path}: expected a checkpoint saved by `padrec fit`, which names its class")
    if locate(found) is not locate(model):
        raise InputError(f"{path}: a checkpoint of {found}, expected one of the config's model {model}")
