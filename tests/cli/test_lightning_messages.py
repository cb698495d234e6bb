"""Which errors are a user's, and which are bugs that keep their traceback."""

from pathlib import Path

import pytest
from lightning.pytorch.callbacks import ModelCheckpoint

from padrec.catalog import InputError
from padrec.cli.lightning_messages import refused_by_lightning
from tests.tiny_training import quiet_trainer


def test_what_lightning_refuses_is_the_users(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="max_epochs") as caught:
        quiet_trainer(tmp_path, max_epochs=-3)
    assert refused_by_lightning(caught.value) == "`max_epochs` must be a non-negative integer or -1. You passed in -3."
    wrapped = ValueError("in a parser's words")
    wrapped.__cause__ = caught.value
    assert refused_by_lightning(wrapped) == refused_by_lightning(caught.value)


def test_errors_of_code_that_lightning_calls_are_not() -> None:
    class Broken(ModelCheckpoint):
        def __init__(self) -> None:
            raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug") as caught:
        Broken()
    assert refused_by_lightning(caught.value) is None
    ours = InputError("with the details")
    ours.__cause__ = caught.value
    assert refused_by_lightning(ours) is None
