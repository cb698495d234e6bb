"""Training of an RQ-VAE."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from padrec.catalog import (
    CodebookSize,
    InputError,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Seed,
    check_arguments,
)
from padrec.quantization.embedding_datamodule import ItemVectors
from padrec.quantization.quantizer_module import QuantizerModule
from padrec.quantization.rq_vae import RQVAE, separation_loss
from padrec.training import TrainableModule, read_checkpoint, stored_hyperparameters

_KIND = "quantizer"
_RESTART_ITEMS = 4096


class RQVAEQuantizer(QuantizerModule, TrainableModule):
    """Trains an RQ-VAE on item embeddings: loss = reconstruction + codebook loss + β · commitment loss.

    Codes start from a residual k-means of many latents; codes that were not used for an epoch move onto items. With
    `separation` above 0, the loss also pushes apart items of a batch that the codes could hardly distinguish, see
    `separation_loss`.

    Args:
        dimension: size of an embedding; linked from the datamodule.
        codebook_sizes: codes in each slot.
        hidden_sizes: hidden layers of the encoder; the decoder has them in reverse.
        latent_size: size of a code vector.
        commitment: β.
        separation: weight of the separation loss, relative to the reconstruction error of unscaled embeddings.
        separation_margin: wanted distance between items, in units of the quantization error of the batch.
        sinkhorn_epsilon: entropy weight for the last slot in training; 0 switches Sinkhorn off.
        initial_items: items whose latents are clustered for the first codes, a random sample.
        learning_rate: peak learning rate.
        weight_decay: decay of the layers' matrices; code vectors are never decayed.
        warmup_steps: optimiser steps until the peak; cosine decay to zero follows.
        seed: seed of the first codes and of restarted codes.
    """

    def __init__(
        self,
        dimension: PositiveInt,
        codebook_sizes: Sequence[CodebookSize] = (256, 256, 256, 256),
        hidden_sizes: Sequence[PositiveInt] = (512, 256, 128),
        latent_size: PositiveInt = 32,
        commitment: NonNegativeFloat = 0.25,
        separation: NonNegativeFloat = 0.0,
        separation_margin: PositiveFloat = 2.0,
        sinkhorn_epsilon: NonNegativeFloat = 0.003,
        initial_items: PositiveInt = 65536,
        learning_rate: PositiveFloat = 1e-3,
        weight_decay: NonNegativeFloat = 1e-4,
        warmup_steps: NonNegativeInt = 100,
        seed: Seed = 0,
    ) -> None:
        check_arguments(RQVAEQuantizer, locals())
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay, warmup_steps=warmup_steps, seed=seed)
        self.save_hyperparameters(ignore=["dimension"])
        self._dimension = dimension
        self._commitment = commitment
        self._separation = separation
        self._separation_margin = separation_margin
        self._initial_items = initial_items
        self.network = RQVAE(dimension, codebook_sizes, hidden_sizes, latent_size, sinkhorn_epsilon)
        self._uses = self._no_uses()

    @classmethod
    def load(cls, path: str | Path) -> "RQVAEQuantizer":
        """Read a Lightning checkpoint of a quantizer."""
        checkpoint = read_checkpoint(Path(path), _KIND)
        module = cls(dimension=checkpoint["dimension"], **stored_hyperparameters(checkpoint))
        module.load_state_dict(checkpoint["state_dict"])
        return module.eval()

    @property
    def quantizer(self) -> RQVAE:
        """The network."""
        return self.network

    @property
    def codebooks(self) -> list[Tensor]:
        """See `QuantizerModule`."""
        return self.network.code_vectors

    def metric_names(self) -> set[str]:
        """See `TrainableModule`."""
        losses = {f"train/{name}" for name in ("reconstruction", "commitment")}
        if self._separation > 0:
            losses.add("train/separation")
        names = ("train/restarted_codes", "val/codes_used", "val/perplexity", "val/reconstruction")
        by_slot = {f"{name}/slot_{slot}" for name in names for slot in range(len(self._uses))}
        return super().metric_names() | losses | by_slot | {"val/collisions"}

    def trainable_module(self) -> nn.Module:
        """See `TrainableModule`."""
        return self.network

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store the kind, the size of the embeddings and the uses of each code in this epoch."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["kind"] = _KIND
        checkpoint["dimension"] = self._dimension
        checkpoint["uses"] = [used.cpu() for used in self._uses]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the uses of each code; a checkpoint for embeddings of another size is refused."""
        if checkpoint.get("dimension") != self._dimension:
            found = f"the checkpoint reads embeddings of {checkpoint.get('dimension')} values"
            expected = "expected a checkpoint trained on these embeddings"
            raise InputError(f"{found}, the data have {self._dimension}: {expected}")
        self._uses = list(checkpoint["uses"])

    def on_train_start(self) -> None:
        """Cluster the latents unless the fit resumes."""
        self._uses = [used.to(self.device) for used in self._uses]
        if self.global_step == 0:
            generator = torch.Generator().manual_seed(self._seed)
            self.network.initialise_codebooks(self._sample(self._initial_items, generator), seed=self._seed)

    def on_train_epoch_start(self) -> None:
        """Move codes that were not used in the last epoch onto random items.

        Not at that epoch's end: its checkpoint would hold codes that no step has adapted, and a resumed fit would move
        them again.
        """
        if any(bool(uses.any()) for uses in self._uses):
            generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self.current_epoch)
            vectors = self._sample(_RESTART_ITEMS, generator).to(self.device)
            moved = self.network.restart_dead_codes(vectors, self._uses, generator)
            for slot, codes in enumerate(moved):
                self.log(f"train/restarted_codes/slot_{slot}", float(len(codes)))
        self._uses = self._no_uses()

    def training_step(self, batch: ItemVectors, batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        output = self.network(batch.vectors)
        reconstruction = nn.functional.mse_loss(output.reconstruction, batch.vectors)
        loss: Tensor = reconstruction + output.codebook_loss + self._commitment * output.commitment_loss
        for uses, codes in zip(self._uses, output.codes.unbind(1), strict=True):
            counts = torch.bincount(codes, minlength=len(uses))
            uses.add_(torch.as_tensor(self.trainer.strategy.reduce(counts, reduce_op="sum")))
        losses = {"reconstruction": reconstruction, "commitment": output.commitment_loss}
        if self._separation > 0:
            losses["separation"] = separation_loss(output.latents, self._separation_margin * output.error)
            loss = loss + self._separation * losses["separation"]
        losses["loss"] = loss
        for name, value in losses.items():
            self.log(f"train/{name}", value.detach(), sync_dist=True, batch_size=len(batch.vectors))
        return loss

    def _sample(self, n_items: int, generator: torch.Generator) -> Tensor:
        """Embeddings of at most `n_items` random items, the same on all processes."""
        vectors = self.embeddings.vectors
        return vectors[torch.randperm(len(vectors), generator=generator)[:n_items]]

    def _no_uses(self) -> list[Tensor]:
        return [torch.zeros(size, dtype=torch.long, device=self.device) for size in self.network.codebook_sizes]
