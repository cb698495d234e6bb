"""The command line: `padrec fit|validate|test|predict --config …`."""

import sys
from collections.abc import Sequence

from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

import padrec
from padrec.catalog import InputError

_LINKS = ("vocabulary", "catalog", "list_length", "dataset_name")


class PadrecCLI(LightningCLI):
    """A LightningCLI whose data hands its vocabulary, catalog and sizes to the model."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Link what the datamodule knows to the models that ask for it; others are left alone."""
        for name in _LINKS:
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")


def main(args: ArgsType = None) -> PadrecCLI:
    """Run the program.

    Args:
        args: command-line arguments; None takes the process's own.

    Raises:
        SystemExit: status 2 after one message for wrong input.
    """
    try:
        return PadrecCLI(
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_kwargs={"overwrite": True},
            auto_configure_optimizers=False,
            args=args,
        )
    except InputError as error:
        print(f"padrec: error: {error}", file=sys.stderr)
        raise SystemExit(2) from error


__all__: Sequence[str] = ["PadrecCLI", "main", "padrec"]
