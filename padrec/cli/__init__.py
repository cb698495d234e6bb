"""The command line: `padrec prepare|fit|validate|test|predict --config …`."""

from padrec.cli.command_line import main as main
