"""The command line: `padrec fit|validate|test|predict --config …`."""

import sys

from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

import padrec  # noqa: F401  # short class names in configs resolve among what is imported
from padrec.catalog import InputError

_LINKS = ("vocabulary", "catalog", "list_length")


class PadrecCLI(LightningCLI):
    """A LightningCLI whose data hands its vocabulary, catalog and sizes to the model."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Link what the datamodule knows to the models that ask for it; others are left alone."""
        for name in _LINKS:
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")

    def before_predict(self) -> None:
        """Keep predictions from piling up in memory: `RecommendationWriter` takes them as they come."""
        self.config_init["predict"]["return_predictions"] = False


def main(args: ArgsType = None) -> None:
    """Run the program.

    Args:
        args: command-line arguments; None takes the process's own.

    Raises:
        SystemExit: status 2 after one message for wrong input.
    """
    try:
        PadrecCLI(
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_kwargs={"overwrite": True},
            auto_configure_optimizers=False,
            parser_kwargs={"parser_mode": "omegaconf+"},  # resolves ${…} last, overrides included
            args=args,
        )
    except ValueError as error:
        wrong_input = _wrong_input(error)
        if wrong_input is None:
            raise
        print(f"padrec: error: {wrong_input}", file=sys.stderr)
        raise SystemExit(2) from error


def _wrong_input(error: BaseException | None) -> InputError | None:
    """The wrong input behind an error: the parser wraps what a constructor raises in errors of its own."""
    while error is not None and not isinstance(error, InputError):
        error = error.__cause__ or error.__context__
    return error
