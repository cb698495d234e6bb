"""The residual-quantized autoencoder."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from padrec.catalog import InputError
from padrec.quantization.codebook import Codebook
from padrec.quantization.k_means import squared_distances
from padrec.quantization.residual_k_means import ResidualKMeans


@dataclass(frozen=True)
class RQVAEOutput:
    """What a training pass gives.

    Attributes:
        reconstruction: `[m, d]`.
        codes: int64 `[m, L]`.
        latents: of the items, `[m, e]`.
        error: root mean square over items of ‖z − Σ e_l‖, scalar without a gradient.
        codebook_loss: mean over slots and values of ‖sg(r) − e‖²: moves codes to residuals.
        commitment_loss: mean over slots and values of ‖r − sg(e)‖²: moves residuals to codes.
    """

    reconstruction: Tensor
    codes: Tensor
    latents: Tensor
    error: Tensor
    codebook_loss: Tensor
    commitment_loss: Tensor


class RQVAE(nn.Module):
    """Autoencoder whose latent is a sum of one code vector for each slot.

    RQ-VAE: Zeghidour et al. 2021, Lee et al. 2022. TIGER (Rajput et al. 2023) makes semantic IDs of items with it,
    LC-Rec (Zheng et al. 2024) balances the last slot by Sinkhorn. Latent z = encoder(x), r₀ = z; slot l takes a code
    vector e_l near r_l, and r_{l+1} = r_l − e_l. The decoder reads Σ e_l; gradients go straight through to z.

    Args:
        dimension: of an item embedding, d.
        codebook_sizes: codes in each slot.
        hidden_sizes: of the encoder; the decoder has them in reverse.
        latent_size: of a code vector, e.
        sinkhorn_epsilon: of the last slot in training, see `sinkhorn`; 0 takes the nearest code there too.
        sinkhorn_iterations: see `sinkhorn`.
        batch_size: items that `encode` computes at a time.

    Raises:
        InputError: a size below one, or no slots.
    """

    def __init__(
        self,
        dimension: int,
        codebook_sizes: Sequence[int] = (256, 256, 256, 256),
        hidden_sizes: Sequence[int] = (512, 256, 128),
        latent_size: int = 32,
        sinkhorn_epsilon: float = 0.003,
        sinkhorn_iterations: int = 50,
        batch_size: int = 16384,
    ) -> None:
        super().__init__()
        sizes = [dimension, *hidden_sizes, latent_size]
        if not codebook_sizes or min(*sizes, *codebook_sizes, batch_size) < 1 or sinkhorn_epsilon < 0:
            raise InputError(
                f"codebook_sizes {list(codebook_sizes)}, layers {sizes}, batch_size {batch_size}, sinkhorn_epsilon "
                f"{sinkhorn_epsilon}: expected at least one slot, sizes of at least 1, and no negative epsilon"
            )
        self.encoder = _perceptron(sizes)
        self.decoder = _perceptron(sizes[::-1])
        last = len(codebook_sizes) - 1
        self.codebooks = nn.ModuleList(
            Codebook(size, latent_size, sinkhorn_epsilon if slot == last else 0.0, sinkhorn_iterations)
            for slot, size in enumerate(codebook_sizes)
        )
        self._batch_size = batch_size

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """Codes in each slot."""
        return tuple(book.vectors.num_embeddings for book in self._books())

    @property
    def code_vectors(self) -> list[Tensor]:
        """Code vectors of each slot, `[K, e]`."""
        return [book.vectors.weight.detach() for book in self._books()]

    def forward(self, vectors: Tensor) -> RQVAEOutput:
        """Encode, quantize and decode.

        Args:
            vectors: `[m, d]`.
        """
        latents = self.encoder(vectors)  # [m, e]
        residuals, codes, codebook_losses, commitment_losses = latents, [], [], []
        for book in self._books():
            codes.append(book.choose(residuals))
            chosen = book.vectors(codes[-1])  # [m, e]
            codebook_losses.append(nn.functional.mse_loss(chosen, residuals.detach()))
            commitment_losses.append(nn.functional.mse_loss(residuals, chosen.detach()))
            # Codes are constants to the slots behind them: these only pull at the encoder.
            residuals = residuals - chosen.detach()
        quantized = latents - residuals.detach()  # Σ e_l with the gradient of the latents
        return RQVAEOutput(
            reconstruction=self.decoder(quantized),
            codes=torch.stack(codes, dim=1),
            latents=latents,
            error=residuals.detach().square().sum(1).mean().sqrt(),
            codebook_loss=torch.stack(codebook_losses).mean(),
            commitment_loss=torch.stack(commitment_losses).mean(),
        )

    @torch.no_grad()
    def initialise_codebooks(self, vectors: Tensor, iterations: int = 20, seed: int = 0) -> None:
        """Set the codes to a residual k-means of latents.

        Args:
            vectors: items to take the latents of, `[n, d]`: many more than one batch, so that every code starts where
                items are.
            iterations: of k-means.
            seed: of k-means.
        """
        device = self._device()
        latents = torch.cat([self.encoder(batch.to(device)) for batch in vectors.split(self._batch_size)])
        clusters = ResidualKMeans(self.codebook_sizes, iterations=iterations, fit_items=None, seed=seed, device=device)
        for book, centroids in zip(self._books(), clusters.fit(latents).codebooks, strict=True):
            book.vectors.weight.copy_(centroids)

    @torch.no_grad()
    def restart_dead_codes(self, vectors: Tensor, uses: Sequence[Tensor], generator: torch.Generator) -> list[Tensor]:
        """Move codes that no item chose onto items, see `Codebook.restart`.

        Args:
            vectors: items that dead codes may move to, `[m, d]`.
            uses: how often each code was chosen, for each slot int64 `[K]`.
            generator: chooses among the items, on the CPU.

        Returns:
            The codes that were moved, for each slot.
        """
        residuals = self.encoder(vectors)
        moved = []
        for book, used in zip(self._books(), uses, strict=True):
            moved.append(book.restart(residuals, used, generator))
            nearest = squared_distances(residuals, book.vectors.weight).argmin(1)
            residuals = residuals - book.vectors(nearest)
        return moved

    @torch.no_grad()
    def encode(self, vectors: Tensor) -> Tensor:
        """See `Quantizer`."""
        return torch.cat([self._encode_batch(batch.to(self._device())) for batch in vectors.split(self._batch_size)])

    def _encode_batch(self, vectors: Tensor) -> Tensor:
        residuals, codes = self.encoder(vectors), []
        for book in self._books():
            codes.append(squared_distances(residuals, book.vectors.weight).argmin(1))
            residuals = residuals - book.vectors(codes[-1])
        return torch.stack(codes, dim=1).cpu()

    @torch.no_grad()
    def distances(self, vectors: Tensor, prefix: Tensor) -> Tensor:
        """See `Quantizer`; distances between latents."""
        residuals = self.encoder(vectors.to(self._device()))
        for book, codes in zip(self._books(), prefix.to(self._device()).unbind(1), strict=False):
            residuals = residuals - book.vectors(codes)
        return squared_distances(residuals, self._books()[prefix.shape[1]].vectors.weight).cpu()

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """The embeddings that codes stand for.

        Args:
            codes: int64 `[n, any number of the first slots]`.

        Returns:
            `[n, d]`, on the network's device.
        """
        chosen = zip(self._books(), codes.to(self._device()).unbind(1), strict=False)
        decoded: Tensor = self.decoder(torch.stack([book.vectors(slot) for book, slot in chosen]).sum(0))
        return decoded

    def _books(self) -> list[Codebook]:
        return [book for book in self.codebooks if isinstance(book, Codebook)]

    def _device(self) -> torch.device:
        return next(self.parameters()).device


def _perceptron(sizes: Sequence[int]) -> nn.Sequential:
    """Linear layers with ReLU between them, Xavier-initialised as in LC-Rec."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        linear = nn.Linear(inputs, outputs)
        nn.init.xavier_normal_(linear.weight)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])
