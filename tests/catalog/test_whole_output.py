import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from padrec.catalog import InputError
from padrec.catalog.tensor_file import write_tensors
from padrec.catalog.whole_output import check_digests, check_place, locked, written_whole
from tests.damage import with_a_flipped_bit


def write_folder(path: Path) -> None:
    with written_whole(path) as part:
        (part / "below").mkdir(parents=True)
        (part / "a.txt").write_text("first")
        (part / "below" / "ü.txt").write_text("second")


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_folder_gets_its_name_when_it_is_whole(tmp_path: Path) -> None:
    with written_whole(tmp_path / "new" / "out") as part:
        part.mkdir()
        assert not (tmp_path / "new" / "out").exists()
    assert names(tmp_path / "new") == {"out"}


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyError), written_whole(tmp_path / "out") as part:  # noqa: PT012
        part.write_text("half")
        raise KeyError
    assert names(tmp_path) == set()


def test_a_kill_leaves_what_the_next_process_clears(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from padrec.catalog.whole_output import written_whole\n"
        "with written_whole(Path(sys.argv[1])) as part:\n"
        "    part.write_text('half'); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(tmp_path / "out")], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert names(tmp_path) == {"out.partial"}
    write_folder(tmp_path / "out")
    assert names(tmp_path) == {"out"}
    check_digests(tmp_path / "out")


def test_one_process_writes_at_a_time(tmp_path: Path) -> None:
    with written_whole(tmp_path / "out") as part:
        part.write_text("first")
        with pytest.raises(InputError, match="another process is writing it, expected one at a time"):
            write_folder(tmp_path / "out")
    assert (tmp_path / "out").read_text() == "first"


def test_what_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there already"), written_whole(tmp_path / "out") as part:  # noqa: PT012
        part.write_text("mine")
        (tmp_path / "out").write_text("theirs")
    assert (tmp_path / "out").read_text() == "theirs"
    with written_whole(tmp_path / "out", overwrite=True) as part:
        part.write_text("mine")
    assert (tmp_path / "out").read_text() == "mine"


def test_the_digests_are_those_of_sha256sum(tmp_path: Path) -> None:
    write_folder(tmp_path / "out")
    check = ["sha256sum", "--check", "--quiet", "--strict", "padrec.sha256"]
    assert subprocess.run(check, cwd=tmp_path / "out", check=True, capture_output=True).stdout == b""


@pytest.mark.parametrize("name", ["a.txt", "below/ü.txt"])
def test_a_changed_or_missing_file_is_named(name: str, tmp_path: Path) -> None:
    write_folder(tmp_path / "out")
    file = tmp_path / "out" / name
    file.write_bytes(with_a_flipped_bit(file.read_bytes()))
    with pytest.raises(InputError, match=f"{name}: not what was written, expected SHA-256"):
        check_digests(tmp_path / "out")
    file.unlink()
    with pytest.raises(InputError, match=f"no {name}, expected every file that padrec.sha256 names"):
        check_digests(tmp_path / "out")


def test_a_place_below_a_file_is_refused_before_and_while_writing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for check in (check_place, write_folder):
        with pytest.raises(InputError, match=r"out: cannot be written \(Not a directory\)"):
            check(tmp_path / "file" / "out")


def test_a_place_that_can_be_written_is_left_as_it_is(tmp_path: Path) -> None:
    check_place(tmp_path / "new" / "out")
    assert names(tmp_path) == set()


@contextmanager
def lowered(limit: int, value: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(limit)
    resource.setrlimit(limit, (value, hard))
    try:
        yield
    finally:
        resource.setrlimit(limit, (soft, hard))


def test_a_limit_of_the_system_is_one_message_and_leaves_nothing(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with (
            lowered(resource.RLIMIT_FSIZE, 1000),
            pytest.raises(InputError, match=r"cannot be written .*File too large"),
        ):
            write_tensors(tmp_path / "out.safetensors", {"zeros": torch.zeros(1000)})
    finally:
        signal.signal(signal.SIGXFSZ, before)
    with lowered(resource.RLIMIT_NOFILE, 3), pytest.raises(InputError, match="Too many open files"):
        write_folder(tmp_path / "out")
    assert names(tmp_path) <= {"out.partial"}


def test_a_lock_ends_with_its_block(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(InputError, match="another process is writing it"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass
