"""Whether a flipped bit in what padrec has written is noticed when it is read.

From the repository's root: python -m experiments.reliability.flips --output runs/reliability/flips
"""

import random
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.utils.logging import disable_progress_bar

from experiments.reliability.padrec_commands import (
    fit_draft,
    fit_target,
    load_what_commands_need,
    made_up_embeddings,
    made_up_log,
    prepare,
    semantic_ids,
)
from experiments.study import check_positive, circumstances, report_markdown, run_command
from padrec import Catalog, EmbeddingFile, InputError, PreparedReader, TargetRecommender
from padrec.data import Split
from padrec.drafts import DraftCheckpoint
from padrec.evaluation.report import check_writable, markdown_table, write_report
from padrec.quantization import read_codebooks
from padrec.training import read_checkpoint

_OUTCOMES = ("refused", "harmless", "other_data", "other_error")


@dataclass(frozen=True)
class Written:
    """What padrec has written, and how it is read.

    Attributes:
        name: what it is.
        place: its file or folder.
        read: reads it, as tensors, primitives, and mappings and sequences of them.
    """

    name: str
    place: Path
    read: Callable[[], object]

    @property
    def files(self) -> list[Path]:
        """All its files."""
        found = self.place.rglob("*") if self.place.is_dir() else [self.place]
        return sorted(path for path in found if path.is_file())


def measure(output: Path, flips: int = 20, items: int = 200, interactions: int = 5000, seed: int = 0) -> None:
    """Flip a random bit of a file, read what it belongs to, and again; writes report.json and report.md.

    Args:
        output: folder of the report, new or without one.
        flips: of each file, one at a time.
        items: with embeddings and semantic IDs.
        interactions: in the log that is prepared.
        seed: of the bits and the data.

    Raises:
        InputError: a size below 1, or a report that is already there.
    """
    check_positive(flips=[flips], items=[items], interactions=[interactions])
    check_writable(output)
    load_what_commands_need()
    disable_progress_bar()
    draw = random.Random(seed)
    content = circumstances("experiments.reliability.flips", torch.device("cpu"), torch.float32, seed)
    with tempfile.TemporaryDirectory() as folder:
        found = [
            flipped(path, written, flips, draw)
            for written in _everything(Path(folder), items, interactions, seed)
            for path in written.files
        ]
    content |= {"files": found, "total": {name: sum(row[name] for row in found) for name in ("flips", *_OUTCOMES)}}
    write_report(output, content, _markdown(content))


def _everything(folder: Path, items: int, interactions: int, seed: int) -> list[Written]:
    embeddings, log = made_up_embeddings(folder / "embeddings", items, seed), made_up_log(folder, interactions, seed)
    commands = [fit_target(folder), semantic_ids(folder, embeddings), prepare(folder, log)]
    commands.append(fit_draft(folder, commands[0].output))
    for command in commands:
        command.run("--trainer.max_steps=1") if command.resumable else command.run()
    target_checkpoint, catalog, prepared, draft_checkpoint = (command.output for command in commands)
    target, draft = folder / "target-folder", folder / "draft-folder"
    TargetRecommender.load(target_checkpoint).save_pretrained(target)
    DraftCheckpoint.read(draft_checkpoint).write(draft)
    return [
        Written("target folder", target, lambda: _target(target)),
        Written("draft folder", draft, lambda: _draft(draft)),
        Written("catalog folder", catalog, lambda: _catalog_folder(catalog)),
        Written("prepared folder", prepared, lambda: _prepared(prepared)),
        Written("embeddings", embeddings.parent, lambda: _embeddings(embeddings)),
        Written("target checkpoint", target_checkpoint, lambda: read_checkpoint(target_checkpoint)),
        Written("draft checkpoint", draft_checkpoint, lambda: read_checkpoint(draft_checkpoint)),
    ]


def _target(folder: Path) -> object:
    found = TargetRecommender.load(folder)
    described = [found.backbone.config.to_dict(), found.vocabulary.to_dict(), found.prompt_format]
    return [found.backbone.state_dict(), described, _items(found.catalog)]


def _draft(folder: Path) -> object:
    found = DraftCheckpoint.read(folder)
    return [found.weights, found.description, _items(found.catalog)]


def _catalog_folder(folder: Path) -> object:
    return [_items(Catalog.load(folder)), read_codebooks(folder / "codebooks.safetensors")]


def _prepared(folder: Path) -> object:
    found = PreparedReader(str(folder), None).read()
    split = found.interactions
    assert isinstance(split, Split)
    parts = [[part.items, part.offsets] for part in (split.train, split.validation, split.test)]
    return [_items(found.catalog), split.user_keys, parts]


def _embeddings(path: Path) -> object:
    found = EmbeddingFile(str(path)).embed()
    return [found.keys, found.vectors]


def _items(catalog: Catalog | None) -> object:
    return None if catalog is None else [catalog.keys, catalog.texts, catalog.codes]


def flipped(path: Path, written: Written, flips: int, draw: random.Random) -> dict[str, Any]:
    """Count what comes of single flipped bits in a file, which is then as before."""
    whole, expected = path.read_bytes(), written.read()
    counts = Counter(dict.fromkeys(_OUTCOMES, 0))
    for _ in range(flips):
        damaged, bit = bytearray(whole), draw.randrange(8 * len(whole))
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            counts["harmless" if _same(written.read(), expected) else "other_data"] += 1
        except InputError:
            counts["refused"] += 1
        except Exception:  # whatever it is, its user sees a traceback
            counts["other_error"] += 1
    path.write_bytes(whole)
    name = path.name if path == written.place else path.relative_to(written.place).as_posix()
    return {"read": written.name, "file": name, "bytes": len(whole), "flips": flips} | counts


def _same(found: object, expected: object) -> bool:
    if isinstance(found, Tensor) and isinstance(expected, Tensor):
        return found.dtype == expected.dtype and torch.equal(found, expected)
    if isinstance(found, Mapping) and isinstance(expected, Mapping):
        return list(found) == list(expected) and _same(list(found.values()), list(expected.values()))
    if isinstance(found, list | tuple) and isinstance(expected, list | tuple):
        return len(found) == len(expected) and all(map(_same, found, expected))
    return found == expected


def _markdown(content: Mapping[str, Any]) -> str:
    columns = ("flips", *_OUTCOMES)
    rows = [
        [row["read"], row["file"], f"{row['bytes']:,}", *(str(row[column]) for column in columns)]
        for row in content["files"]
    ]
    rows.append(["all", "", "", *(str(content["total"][column]) for column in columns)])
    header = ["read", "file", "bytes", "flips", "refused", "harmless", "other data", "other error"]
    about = (
        "One bit at a time, at random. Refused: an `InputError`. Harmless: read as before. Other data: read as "
        "something else, unnoticed. Other error: any other exception."
    )
    return report_markdown(content, "# Flipped bits", markdown_table(header, rows), about)


if __name__ == "__main__":
    run_command(measure)
