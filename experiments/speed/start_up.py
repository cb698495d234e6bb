"""What starting costs: user CPU seconds of imports and commands, and the large packages that each loads.

    python -m experiments.speed.start_up before docs/results/start-up/report.json

measures the padrec that this interpreter imports and writes the figures under the given name into the report.
"""

import argparse
import json
import os
import platform
import re
import resource
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

_PREDICT = "--config experiments/beauty/lists.yaml --config experiments/beauty/greedy.yaml --print_config"
_COMMANDS = {
    "import torch": ["-c", "import torch"],
    "import padrec": ["-c", "import padrec"],
    "import padrec.metrics": ["-c", "import padrec.metrics"],
    "padrec --help": ["-m", "padrec", "--help"],
    "padrec predict": ["-m", "padrec", "predict", *_PREDICT.split()],
}
_LARGE = ("torch", "transformers", "lightning", "torchmetrics", "peft", "matplotlib", "scipy", "pyarrow", "tensorboard")
_IMPORT = re.compile(r"^import time: +(\d+) \| +\d+ \| *(\S+)$", re.MULTILINE)
_PACKAGES = ("torch", "transformers", "lightning", "torchmetrics", "jsonargparse", "padrec")


def user_seconds(arguments: Sequence[str]) -> float:
    """CPU seconds in user mode of one Python process; unlike wall time they depend little on what else runs."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before


def imported(arguments: Sequence[str]) -> list[tuple[str, int]]:
    """Modules that a Python process imports, each with the microseconds of its own code (`-X importtime`)."""
    command = [sys.executable, "-X", "importtime", *arguments]
    ended = subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    return [(name, int(microseconds)) for microseconds, name in _IMPORT.findall(ended.stderr)]


def measured(arguments: Sequence[str], repeats: int) -> dict[str, Any]:
    seconds = sorted(user_seconds(arguments) for _ in range(repeats))
    modules = imported(arguments)
    packages = {name.partition(".")[0] for name, _ in modules}
    of_package: Counter[str] = Counter()
    for name, microseconds in modules:
        of_package[name.partition(".")[0]] += microseconds
    return {
        "command": "python " + " ".join(arguments),
        "user_cpu_seconds": {"min": round(seconds[0], 2), "median": round(median(seconds), 2), "runs": repeats},
        "modules": len(modules),
        "large_packages": [name for name in _LARGE if name in packages],
        "importtime_ms": {name: round(total / 1000, 1) for name, total in of_package.most_common(8)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="of the figures in the report, such as before or after")
    parser.add_argument("report", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    report = json.loads(arguments.report.read_text()) if arguments.report.exists() else {}
    report["versions"] = {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES}
    report["machine"] = {"cpu_count": os.cpu_count(), "note": "other programs ran on the same cores"}
    report[arguments.name] = {name: measured(command, arguments.repeats) for name, command in _COMMANDS.items()}
    arguments.report.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
