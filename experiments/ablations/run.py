"""The grid of position-aware drafts: trains and evaluates what is missing, side by side, and draws tables and plots.

From the repository's root: python -m experiments.ablations.run --size tiny. What is finished is not done again, and an
interrupted fit resumes after its last epoch; remove a cell's folder below runs/ablations to start it over.
"""

import os
import subprocess
import sys
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from experiments.ablations.table import tabulate
from experiments.study import check_positive, run_command
from padrec import InputError

_CONFIGS = Path("experiments/ablations")
_SHARED = "-shared"
_LISTS = {"lists-greedy": 0.0, "lists-sampled": 1.0}  # temperatures
_TREE = {"depth": 12, "width": 6, "nodes": 52, "greedy_temperature": 0.35}
_ITEM_TREE, _ITEM_PASSES = {"width": 4, "nodes": 64, "greedy_temperature": 0.13}, 4


@dataclass(frozen=True)
class Cell:
    """One command of the grid.

    Attributes:
        folder: of its configuration, its log and its results.
        program: after `python -m`, up to the option that takes the configuration.
        needs: folders of the cells that come first.
    """

    folder: Path
    program: tuple[str, ...]
    needs: tuple[Path, ...]

    @property
    def finished(self) -> Path:
        """The file that says so."""
        return self.folder / "finished"

    def start(self, gpu: str | None) -> "subprocess.Popen[bytes]":
        """Start the command, on that GPU if one is given."""
        last = self.folder / "checkpoints" / "last.ckpt"
        resumed = ["--ckpt_path", str(last)] if last.exists() else []
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **({} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu})}
        command = [sys.executable, "-m", *self.program, str(self.folder / "cell.yaml"), *resumed]
        with (self.folder / "log.txt").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)


class Grid:
    """The cells of one dataset.

    Args:
        root: folder of the cells.
        data: a name in grid.yaml, or that with `-shared`.
        size: a name in grid.yaml.
        settings: grid.yaml.
        cells: gets the cells.
    """

    def __init__(self, root: Path, data: str, size: str, settings: Mapping[str, Any], cells: list[Cell]) -> None:
        self.root, self._cells = root, cells
        self._sizes, self._settings = settings["sizes"][size], settings
        catalog, shared = data.removesuffix(_SHARED), data.endswith(_SHARED)
        reader, self._item_length = settings["data"][catalog], settings["item_lengths"][catalog]
        self._data = {"data": {"init_args": {"reader": reader, "shared_codes": shared}}}

    def add(self, name: str, stage: str, program: Sequence[str], needs: Sequence[str], own: Mapping[str, Any]) -> None:
        """Add a cell and write its configuration: that of its stage, the size, the data and its own part."""
        folder = self.root / name
        folder.mkdir(parents=True, exist_ok=True)
        stage_config = OmegaConf.load(_CONFIGS / f"{stage}.yaml")
        config = OmegaConf.merge(stage_config, self._sizes.get(stage, {}), self._data, own)
        OmegaConf.save(config, folder / "cell.yaml")
        self._cells.append(Cell(folder, tuple(program), tuple(self.root / need for need in needs)))

    def fit(self, name: str, stage: str, needs: Sequence[str], seed: int, model: Any, **data: Any) -> None:  # noqa: ANN401
        """Add the training of a model, of which this is the configuration."""
        logger = {"init_args": {"save_dir": str(self.root), "name": name}}
        parts = {
            "trainer": {"logger": logger},
            "data": {"init_args": {"seed": seed, **data}},
            "model": model,
        }
        self.add(name, stage, ["padrec", "fit", "--config"], needs, {"seed_everything": seed, **parts})

    def add_target(self, bases: Sequence[str]) -> None:
        """Add the target, its lists, and the drafts that others start from."""
        self.fit("target", "target", [], 0, {})
        for name, temperature in _LISTS.items():
            writer = {"class_path": "padrec.RecommendationWriter", "init_args": {"path": self._lists(name)}}
            model = {**self._target, "temperature": temperature}
            own = {"trainer": {"callbacks": [writer]}, "model": {"init_args": model}}
            self.add(name, "lists", ["padrec", "predict", "--config"], ["target"], own)
        for base in bases:
            model = self._draft(base, position_aware=None, unrolled_steps=1, feature_noise=0.1)
            self.fit(f"{base}-start", "draft", ["target"], 0, model)

    def add_drafts(self, bases: Sequence[str], forms: Sequence[str], seed: int) -> None:
        """Add the drafts of one seed and their evaluation."""
        rows = [{"class_path": "padrec.GeneratedLists", "init_args": {"paths": [self._lists(name) for name in _LISTS]}}]
        arms: dict[str, Any] = {"autoregressive": {"class_path": "padrec.AutoregressiveDecoder"}}
        for base in bases:
            start = {"class_path": "padrec.DraftWeights", "init_args": {"path": self._weights(f"{base}-start")}}
            for form in forms:
                own = {"position_aware": self._settings["forms"][form], "initial_weights": start, "seed": seed}
                model = self._draft(base, **own)
                needs = [f"{base}-start", *_LISTS]
                self.fit(f"{base}-{form}-{seed}", "draft", needs, seed, model, training_rows=rows)
                arms[f"{base}-{form}"] = self._arm(base, self._weights(f"{base}-{form}-{seed}"))
        # A call with other drafts evaluates those alone; table.py pairs them with what was evaluated before.
        name = f"evaluation-{seed}-{zlib.crc32(' '.join(arms).encode()):08x}"
        needs = [f"{arm}-{seed}" for arm in arms if arm != "autoregressive"]
        program = ["experiments.ablations.evaluate", "--comparison"]
        self.add(name, "evaluate", program, needs, {"model": {"init_args": {**self._target, "arms": arms}}})

    def _draft(self, base: str, **own: Any) -> dict[str, Any]:
        is_item = base in self._settings["item_bases"]
        arguments = {**self._settings["bases"][base], **self._target, **own}
        return ({"class_path": "padrec.ItemDraft"} if is_item else {}) | {"init_args": arguments}

    def _arm(self, base: str, checkpoint: str) -> dict[str, Any]:
        draft = {"class_path": "padrec.FeatureDraft", "init_args": {"checkpoint": checkpoint}}
        expansion: dict[str, Any] = {"class_path": "padrec.DynamicTree", "init_args": _TREE}
        arguments: dict[str, Any] = {"draft": draft, "expansion": expansion}
        if base in self._settings["item_bases"]:
            size = {**_ITEM_TREE, "depth": _ITEM_PASSES * self._item_length, "item_length": self._item_length}
            arguments["expansion"] = {"class_path": "padrec.ItemTree", "init_args": size}
            arguments["forced_tokens"] = False
        return {"class_path": "padrec.SpeculativeDecoder", "init_args": arguments}

    def _weights(self, name: str) -> str:
        return str(self.root / name / "checkpoints" / "last.ckpt")

    def _lists(self, name: str) -> str:
        return str(self.root / name / "lists.jsonl")

    @property
    def _target(self) -> dict[str, str]:
        return {"target": self._weights("target")}


def run_cells(cells: Sequence[Cell], places: Sequence[str | None], seconds: float) -> list[str]:
    """Run the cells that are not finished, one in each place at a time, until the time is over.

    Args:
        cells: in the order in which they should start.
        places: a GPU for each cell that may run beside others; None lets it choose.
        seconds: after which cells are ended.

    Returns:
        What failed or is left, a line each.
    """
    end, free, failed = time.monotonic() + seconds, list(places), dict[Path, str]()
    running: dict[Path, tuple[subprocess.Popen[bytes], str | None, float]] = {}
    waiting = [cell for cell in cells if not cell.finished.exists()]
    try:
        while time.monotonic() < end:
            for cell in [cell for cell in waiting if all((need / "finished").exists() for need in cell.needs)]:
                if free:
                    gpu = free.pop(0)
                    running[cell.folder] = cell.start(gpu), gpu, time.monotonic()
                    waiting.remove(cell)
            if not running:
                break
            time.sleep(0.2)
            for folder, (process, gpu, started) in list(running.items()):
                if process.poll() is None:
                    continue
                del running[folder]
                free.append(gpu)
                if process.returncode == 0:
                    (folder / "finished").touch()
                    print(f"{folder}: {time.monotonic() - started:.0f} s", flush=True)
                else:
                    failed[folder] = f"{folder}: failed, see {folder}/log.txt"
    finally:
        for process, _, _ in running.values():
            process.terminate()
        for process, _, _ in running.values():
            process.wait()
    return [
        *failed.values(),
        *(f"{folder}: interrupted" for folder in running),
        *(f"{c.folder}: left" for c in waiting),
    ]


def run(
    size: str,
    data: Sequence[str] = ("beauty", "beauty-shared"),
    bases: Sequence[str] = ("hass",),
    forms: Sequence[str] = ("none", "padrec", "slots", "steps", "shuffled", "constant"),
    seeds: int = 3,
    jobs: int = 1,
    gpus: Sequence[int] = (),
    minutes: float = 25.0,
    root: Path = Path("runs/ablations"),
) -> None:
    """Run the grid.

    Args:
        size: of target and drafts, in grid.yaml.
        data: datasets of grid.yaml, the most wanted first; `-shared` after a name for code tokens that slots share.
        bases: base drafts of grid.yaml.
        forms: forms of the position-aware part in grid.yaml; `none` is the base itself.
        seeds: training seeds of each draft, 0 and up.
        jobs: cells side by side on each GPU.
        gpus: numbers of the GPUs; by default whatever a cell finds.
        minutes: after which the call ends; another one goes on.
        root: folder of the results.

    Raises:
        InputError: a name that grid.yaml lacks, or cells that failed or are left.
    """
    check_positive(seeds=[seeds], jobs=[jobs])
    settings: Any = OmegaConf.to_container(OmegaConf.load(_CONFIGS / "grid.yaml"), resolve=False)
    asked = {"sizes": [size], "data": [name.removesuffix(_SHARED) for name in data], "bases": bases, "forms": forms}
    for kind, names in asked.items():
        if unknown := sorted(set(names) - set(settings[kind])):
            raise InputError(f"{kind} {unknown}: expected some of {', '.join(settings[kind])}")
    cells: list[Cell] = []
    grids = [Grid(root / size / name, name, size, settings, cells) for name in data]
    for grid in grids:
        grid.add_target(bases)
    for seed in range(seeds):
        for grid in grids:
            grid.add_drafts(bases, forms, seed)
    places: list[str | None] = [str(gpu) for gpu in gpus]
    left = run_cells(cells, (places or [None]) * jobs, 60 * minutes)
    tabulate([grid.root for grid in grids], root / size)
    if left:
        raise InputError("\n".join([f"{len(left)} cells are left; the same command goes on:", *left]))


if __name__ == "__main__":
    run_command(run)
