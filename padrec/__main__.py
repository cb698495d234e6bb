"""`python -m padrec`: the same program as `padrec`."""

from padrec.cli import main

main()
