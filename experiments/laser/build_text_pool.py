"""Build a pool of texts: `python -m experiments.laser.build_text_pool --help`; see `padrec.TextPoolBuilder`."""

import logging

from jsonargparse import auto_cli

from padrec import TextPoolBuilder


def main(args: list[str] | None = None) -> None:
    """Read the arguments, build the pool and write it."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    builder = auto_cli(TextPoolBuilder, args=args, as_positional=False)
    print(builder)


if __name__ == "__main__":
    main()
