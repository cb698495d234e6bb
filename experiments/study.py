"""What the commands of experiments share: where they run, how they end, what their reports say of it."""

import resource
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jsonargparse import auto_cli
from torch import Tensor

from padrec import InputError
from padrec.decoding.device.device_name import device_name
from padrec.evaluation.report import escape_markdown, software_versions

_DTYPES = {"cuda": torch.bfloat16, "cpu": torch.float32}


def chosen_device(name: str | None) -> tuple[torch.device, torch.dtype]:
    """The device of that name, by default a GPU where there is one, and the precision to decode in there.

    Raises:
        InputError: no such device.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError:
        raise InputError(f"device {name!r}: expected cpu or cuda") from None
    if device.type not in _DTYPES or (device.type == "cuda" and not torch.cuda.is_available()):
        raise InputError(f"device {name!r}: not there, expected cpu, or cuda on a machine with a GPU")
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    return device, _DTYPES[device.type]


def circumstances(program: str, device: torch.device, dtype: torch.dtype, seed: int) -> dict[str, Any]:
    """What every report says of how its numbers came about."""
    return {
        "device": device_name(device),
        "precision": str(dtype).removeprefix("torch."),
        "versions": software_versions(),
        "seed": seed,
        "command": shlex.join(["python", "-m", program, *sys.argv[1:]]),
    }


def report_markdown(content: Mapping[str, Any], *parts: str) -> str:
    """A report for people: its parts in Markdown, then the `circumstances` that its content has."""
    versions = ", ".join(f"{name} {number}" for name, number in content["versions"].items())
    lines = [f"- {name}: {escape_markdown(str(content[name]))}" for name in ("device", "precision", "seed")]
    lines.append(f"- versions: {escape_markdown(versions)}")
    return "\n\n".join([*parts, "## Settings", "\n".join(lines), f"```\n{content['command']}\n```"]) + "\n"


def with_interval(row: Mapping[str, Any], key: str, form: str) -> str:
    """A number of a report with its 95 % interval, in a format such as `.2f`."""
    low, high = row[f"{key}_ci95"]
    return f"{row[key]:{form}} ({low:{form}} – {high:{form}})"


def interval_of(resamples: Tensor) -> list[float]:
    """The ends of the middle 95 % of bootstrap resamples `[n]`."""
    ends: list[float] = resamples.quantile(torch.tensor([0.025, 0.975], dtype=resamples.dtype)).tolist()
    return ends


def resident_bytes() -> int:
    """Memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def peak_bytes() -> int:
    """The most memory that this process has held so far."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def run_command(command: Callable[..., object], arguments: list[str] | None = None) -> None:
    """Run a function with these arguments or the process's; wrong input ends it with status 2 and one message."""
    try:
        auto_cli(command, args=arguments, as_positional=False)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def check_positive(**values: Sequence[int]) -> None:
    """Refuse sizes that are none.

    Raises:
        InputError: an empty list, or a number below 1.
    """
    for name, numbers in values.items():
        if min(numbers, default=0) < 1:
            raise InputError(f"{name} {list(numbers)}: expected numbers from 1")
