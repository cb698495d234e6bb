"""What a SIGKILL at a random moment leaves of a padrec command, and whether the next one ends as if nothing had been.

From the repository's root: python -m experiments.reliability.kills --output runs/reliability/kills
"""

import hashlib
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from experiments.reliability.padrec_commands import (
    PadrecCommand,
    fit_target,
    load_what_commands_need,
    made_up_embeddings,
    made_up_log,
    predict,
    prepare,
    semantic_ids,
)
from experiments.study import check_positive, circumstances, report_markdown, run_command
from padrec import InputError
from padrec.evaluation.report import check_writable, markdown_table, write_report
from padrec.training import read_checkpoint

_Name = Literal["fit", "semantic-ids", "predict", "prepare"]
# A checkpoint of every step, to compare those with that a killed fit has left.
_KEEP_ALL = ("--trainer.callbacks.init_args.filename={step}", "--trainer.callbacks.init_args.save_top_k=-1")
_COLUMNS = ("seconds", "kills", "while_writing", "whole", "absent", "damaged", "runs", "equal", "left_over")


def measure(
    output: Path,
    commands: Sequence[_Name] = ("fit", "semantic-ids", "predict", "prepare"),
    kills: int = 20,
    items: int = 20_000,
    interactions: int = 100_000,
    seed: int = 0,
) -> None:
    """Kill commands at random moments and run them again until they end; writes report.json and report.md.

    Args:
        output: folder of the report, new or without one.
        commands: those to kill.
        kills: of each command.
        items: that get semantic IDs.
        interactions: in the log that is prepared.
        seed: of the moments and the data.

    Raises:
        InputError: a size below 1, a report that is already there, or an undisturbed command that failed.
    """
    check_positive(kills=[kills], items=[items], interactions=[interactions])
    check_writable(output)
    load_what_commands_need()
    draw = random.Random(seed)
    content = circumstances("experiments.reliability.kills", torch.device("cpu"), torch.float32, seed)
    content |= {"items": items, "interactions": interactions, "commands": []}
    with tempfile.TemporaryDirectory() as folder:
        for name in commands:
            command = _command(name, Path(folder), items, interactions, seed)
            content["commands"].append({"command": name} | disturbed(command, kills, draw))
    write_report(output, content, _markdown(content))


def _command(name: _Name, folder: Path, items: int, interactions: int, seed: int) -> PadrecCommand:
    """The command, after what it reads is made."""
    given = folder / "given"
    if name == "semantic-ids":
        return semantic_ids(folder, made_up_embeddings(given, items, seed))
    if name == "prepare":
        return prepare(folder, made_up_log(given, interactions, seed))
    if name == "fit":
        return fit_target(folder)
    fit = fit_target(given)
    fit.run()
    return predict(folder, fit.output)


def disturbed(command: PadrecCommand, kills: int, draw: random.Random) -> dict[str, Any]:
    """Counts of what the kills have left, and of the runs that then ended as the undisturbed one."""
    started = time.perf_counter()
    command.run()
    seconds = time.perf_counter() - started
    end = _state(command.output)
    known = {end} | _states_on_the_way(command)
    counts = Counter(dict.fromkeys(_COLUMNS[1:], 0))
    ended = False
    while not ended or counts["kills"] < kills:
        status = command.killed_after(draw.uniform(0, seconds) if counts["kills"] < kills else None)
        found = _state(command.output)
        if status == -signal.SIGKILL:
            counts["kills"] += 1
            counts["while_writing"] += bool(command.left_over())
            counts["absent" if found is None else "whole" if found in known else "damaged"] += 1
        else:
            counts["left_over"] += len(command.left_over())
        ended = status != -signal.SIGKILL or found == end
        if ended:
            counts["runs"] += 1
            counts["equal"] += found == end
            command.clear()
    return {"seconds": seconds} | counts


def _states_on_the_way(command: PadrecCommand) -> set[str | None]:
    """States of the output before the end: of a fit after every step. Removes the undisturbed output."""
    command.clear()
    if not command.resumable:
        return set()
    command.run(*_KEEP_ALL)
    states = {_state(path) for path in command.output.parent.glob("*.ckpt")}
    command.clear()
    return states


def _state(output: Path) -> str | None:
    """A digest of what a command has written: of a checkpoint's weights, or the bytes of all files.

    None where there is nothing.
    """
    digest = hashlib.sha256()
    if not output.exists():
        return None
    if output.suffix == ".ckpt":
        try:
            weights = read_checkpoint(output)["state_dict"]
        except InputError:
            return "damaged"
        for name, weight in weights.items():
            digest.update(name.encode() + weight.numpy().tobytes())
        return digest.hexdigest()
    files = sorted(path for path in output.rglob("*") if path.is_file()) if output.is_dir() else [output]
    for path in files:
        digest.update(path.relative_to(output.parent).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def _markdown(content: Mapping[str, Any]) -> str:
    rows = [
        [row["command"], f"{row['seconds']:.1f}", *(str(row[column]) for column in _COLUMNS[1:])]
        for row in content["commands"]
    ]
    header = [name.replace("_", " ") for name in ("command", *_COLUMNS)]
    about = (
        "Seconds: of an undisturbed run; kills are uniform in them. While writing: those that left a partial file or "
        "folder. Whole: the output equals that of the undisturbed run, or its weights after one of a fit's steps. "
        "Runs: the command repeated until it ended, a fit with `--ckpt_path`. Equal: runs whose output equals that of "
        "the undisturbed one. Left over: partial files and folders after the runs' end."
    )
    return report_markdown(content, "# Killed commands", markdown_table(header, rows), about)


if __name__ == "__main__":
    run_command(measure)
