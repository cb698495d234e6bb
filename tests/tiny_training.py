"""Data, targets and drafts so small that training them takes seconds, shared by the tests of targets and drafts."""

import csv
import os
import signal
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from padrec.catalog import SemanticIDVocabulary
from padrec.data import PromptBatch, SemanticIDDataModule, SequenceBatch, SyntheticReader
from padrec.drafts import AtSpeedDraft, PADRecDraft, TopKAlignment
from padrec.targets import TargetRecommender


def tiny_data(**arguments: Any) -> SemanticIDDataModule:
    """31 users and 30 items on 27 semantic IDs of three slots; both batch sizes leave a smaller last batch."""
    reader = SyntheticReader(n_users=31, n_items=30, codebook_sizes=(5, 6, 7), mean_length=7, duplicates=0.1)
    sizes = {"list_length": 3, "max_history": 3, "batch_size": 8, "eval_batch_size": 4, "max_users": 7}
    return SemanticIDDataModule(reader, **{**sizes, **arguments})


def tiny_backbone(model_type: str = "llama", **settings: Any) -> dict[str, Any]:
    """Settings of a causal language model whose sizes all differ from the sizes of `tiny_data`'s vocabulary."""
    sizes = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "max_position_embeddings": 256,
    }
    return {"model_type": model_type, **sizes, **settings}


def tiny_recommender(
    data: SemanticIDDataModule, init_seed: int = 0, kind: type[TargetRecommender] = TargetRecommender, **arguments: Any
) -> TargetRecommender:
    """An untrained target for these data whose next-token distributions are far from uniform."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(init_seed)
        return kind(
            **{
                "backbone": tiny_backbone(initializer_range=0.3),
                "vocabulary": data.vocabulary,
                "catalog": data.catalog,
                "prompt_format": data.prompt_format,
                "list_length": data.list_length,
                "warmup_steps": 2,
                **arguments,
            }
        )


def tiny_draft(data: SemanticIDDataModule, target: str | Path, init_seed: int = 0, **arguments: Any) -> PADRecDraft:
    """An untrained draft for a target that was saved before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(init_seed)
        return PADRecDraft(
            **{
                "target": str(target),
                "vocabulary": data.vocabulary,
                "catalog": data.catalog,
                "list_length": data.list_length,
                "unrolled_steps": 3,
                "warmup_steps": 2,
                **arguments,
            }
        )


def tiny_atspeed(data: SemanticIDDataModule, target: str | Path, **arguments: Any) -> AtSpeedDraft:
    """An untrained AtSpeed draft for a target that was saved before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AtSpeedDraft(
            **{
                "target": str(target),
                "vocabulary": data.vocabulary,
                "catalog": data.catalog,
                "backbone": tiny_backbone(hidden_size=8, num_hidden_layers=1),
                "objective": TopKAlignment(top_k=3),
                "list_length": data.list_length,
                "n_beams": 5,
                "draft_width": 4,
                "warmup_steps": 2,
                **arguments,
            }
        )


def quiet_trainer(folder: Path, **arguments: Any) -> Trainer:
    """A trainer that writes nothing unless it is told to."""
    return Trainer(
        **{
            "default_root_dir": folder,
            "accelerator": "cpu",
            "num_sanity_val_steps": 0,
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": False,
            **arguments,
        }
    )


def logged(run: Path, name: str) -> list[float]:
    """A metric's values in the order of steps, from the folder of a `CSVLogger`."""
    with (run / "metrics.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row[name]]


def same_batches(batches: list[SequenceBatch]) -> "DataLoader[SequenceBatch]":
    """A loader of ready-made batches."""
    return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]  # a list is a data set too


def fitted(module: LightningModule, folder: Path, batches: list[SequenceBatch], **arguments: Any) -> Trainer:
    """One optimiser step for each batch, all of them logged."""
    trainer = quiet_trainer(folder, **{"max_epochs": 1, "log_every_n_steps": 1, **arguments})
    trainer.fit(module, same_batches(batches))
    return trainer


def sequence_batch(tokens: Tensor, vocabulary: SemanticIDVocabulary, supervised_from: int = 1) -> SequenceBatch:
    """Whole sequences `<bos> item item …`, `[B, T]`, all but the first tokens to be predicted."""
    slots = vocabulary.sequence_slots(tokens.shape[1]).expand_as(tokens)
    supervised = (torch.arange(tokens.shape[1]) >= supervised_from).expand_as(tokens)
    lengths = torch.full((len(tokens),), tokens.shape[1])
    return SequenceBatch(tokens, slots, lengths, supervised, items=torch.full_like(tokens, -1))


def first_prompts(data: SemanticIDDataModule) -> PromptBatch:
    """The first batch of validation prompts."""
    batch: PromptBatch = next(iter(data.val_dataloader()))
    return batch


class KillAtStep(Callback):
    """Ends the process by SIGKILL, as a machine that goes down does.

    Args:
        step: optimiser steps done by then.
    """

    def __init__(self, step: int) -> None:
        self._step = step

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        if trainer.global_step == self._step:
            os.kill(os.getpid(), signal.SIGKILL)


def validated_acceptance(draft: PADRecDraft, data: SemanticIDDataModule, folder: Path, **arguments: Any) -> float:
    """The acceptance length that a validation logs; arguments of `quiet_trainer`."""
    found = quiet_trainer(folder, **arguments).validate(draft, datamodule=data, verbose=False)
    return found[0]["val/acceptance_length"]
