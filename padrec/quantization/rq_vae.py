"""The residual-quantized autoencoder, and a loss that keeps its latents apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from padrec.catalog import InputError, NonNegativeFloat, PositiveInt, check_arguments
from padrec.quantization.k_means import squared_distances
from padrec.quantization.residual_k_means import ResidualKMeans, nearest_codes, prefix_distances, sum_of_codes
from padrec.quantization.sinkhorn import sinkhorn

# Rows whose distances to all others are in memory at a time.
_ROWS = 1024
# Share of the margin below which items count as equal: they cannot be pushed apart.
_EQUAL = 1e-3


@dataclass(frozen=True)
class RQVAEOutput:
    """Result of a training pass."""

    reconstruction: Tensor  # [m, d]
    codes: Tensor  # int64 [m, L]
    latents: Tensor  # [m, e]
    error: Tensor  # root mean square over items of ‖z − Σ e_l‖, scalar without a gradient
    codebook_loss: Tensor  # mean over slots and values of ‖sg(r) − e‖²; moves codes to residuals
    commitment_loss: Tensor  # mean over slots and values of ‖r − sg(e)‖²; moves residuals to codes


class RQVAE(nn.Module):
    """Autoencoder whose latent is quantized as a sum of one code vector per slot.

    RQ-VAE: Zeghidour et al. 2021, Lee et al. 2022. TIGER (Rajput et al. 2023) uses it for semantic IDs; LC-Rec (Zheng
    et al. 2024) balances the last slot by Sinkhorn. Latent z = encoder(x), r₀ = z; slot l takes a code vector e_l near
    r_l, and r_{l+1} = r_l − e_l. The decoder reads Σ e_l; gradients pass straight through to z.

    Args:
        dimension: size of an item embedding, d.
        codebook_sizes: codes in each slot.
        hidden_sizes: hidden layers of the encoder; the decoder has them in reverse.
        latent_size: size of a code vector, e.
        sinkhorn_epsilon: entropy weight for the last slot in training, see `sinkhorn`; 0 takes the nearest code.
        sinkhorn_iterations: see `sinkhorn`.
        batch_size: items that `encode` computes at a time.
    """

    def __init__(
        self,
        dimension: PositiveInt,
        codebook_sizes: Sequence[PositiveInt] = (256, 256, 256, 256),
        hidden_sizes: Sequence[PositiveInt] = (512, 256, 128),
        latent_size: PositiveInt = 32,
        sinkhorn_epsilon: NonNegativeFloat = 0.003,
        sinkhorn_iterations: PositiveInt = 50,
        batch_size: PositiveInt = 16384,
    ) -> None:
        check_arguments(RQVAE, locals())
        super().__init__()
        sizes = [dimension, *hidden_sizes, latent_size]
        if not codebook_sizes:
            raise InputError("codebook_sizes is [], expected at least one slot")
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
        return tuple(len(book) for book in self.code_vectors)

    @property
    def code_vectors(self) -> list[Tensor]:
        """Code vectors of each slot, `[K, e]`."""
        return [book.vectors.weight.detach() for book in self._books()]

    def forward(self, vectors: Tensor) -> RQVAEOutput:
        """Encode, quantize and decode embeddings `[m, d]`."""
        latents = self.encoder(vectors)  # [m, e]
        residuals, codes, codebook_losses, commitment_losses = latents, [], [], []
        for book in self._books():
            codes.append(book.choose(residuals))
            chosen = book.vectors(codes[-1])  # [m, e]
            codebook_losses.append(nn.functional.mse_loss(chosen, residuals.detach()))
            commitment_losses.append(nn.functional.mse_loss(residuals, chosen.detach()))
            # Codes are constants to the next slots, whose losses reach only the encoder.
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
        """Set the codes to a residual k-means of the latents of items `[n, d]`, with its own iterations and seed.

        The items are many more than one batch, so that every code starts near some.
        """
        device = self._device()
        latents = torch.cat([self.encoder(batch.to(device)) for batch in vectors.split(self._batch_size)])
        clusters = ResidualKMeans(self.codebook_sizes, iterations=iterations, fit_items=None, seed=seed, device=device)
        for book, centroids in zip(self._books(), clusters.fit(latents).codebooks, strict=True):
            book.vectors.weight.copy_(centroids)

    @torch.no_grad()
    def restart_dead_codes(self, vectors: Tensor, uses: Sequence[Tensor], generator: torch.Generator) -> list[Tensor]:
        """Move unused codes onto random items of `[m, d]`, and return the moved codes of each slot, int64.

        `uses` tells how often each code was chosen, int64 `[K]` for each slot; the generator is on the CPU.
        """
        residuals = self.encoder(vectors)
        moved = []
        for book, used in zip(self._books(), uses, strict=True):
            dead = (used == 0).nonzero().flatten()
            chosen = torch.randperm(len(residuals), generator=generator)[: len(dead)]
            moved.append(dead[: len(chosen)])
            book.vectors.weight[moved[-1]] = residuals[chosen.to(residuals.device)]
            nearest = squared_distances(residuals, book.vectors.weight).argmin(1)
            residuals = residuals - book.vectors(nearest)
        return moved

    @torch.no_grad()
    def encode(self, vectors: Tensor) -> Tensor:
        """See `Quantizer`."""
        device, batches = self._device(), vectors.split(self._batch_size)
        return torch.cat([nearest_codes(self.encoder(batch.to(device)), self.code_vectors).cpu() for batch in batches])

    @torch.no_grad()
    def distances(self, vectors: Tensor, prefix: Tensor) -> Tensor:
        """See `Quantizer`; distances are between latents."""
        return prefix_distances(self.encoder(vectors.to(self._device())), self.code_vectors, prefix).cpu()

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Decode codes of the first slots (int64 `[n, l]`) to embeddings `[n, d]` on the network's device."""
        decoded: Tensor = self.decoder(sum_of_codes(self.code_vectors, codes))
        return decoded

    def _books(self) -> list["Codebook"]:
        return [book for book in self.codebooks if isinstance(book, Codebook)]

    def _device(self) -> torch.device:
        return next(self.parameters()).device


class Codebook(nn.Module):
    """The code vectors of one slot, `[K, e]`; with an epsilon above 0, Sinkhorn chooses the codes in training."""

    def __init__(self, n_codes: int, dimension: int, epsilon: float = 0.0, iterations: int = 50) -> None:
        super().__init__()
        # An embedding rather than a bare parameter: weight decay spares embeddings.
        self.vectors = nn.Embedding(n_codes, dimension)
        self.epsilon = epsilon
        self.iterations = iterations

    @torch.no_grad()
    def choose(self, residuals: Tensor) -> Tensor:
        """The codes of residuals `[m, e]`, int64 `[m]`; only in training may an item's code depend on its batch."""
        distances = squared_distances(residuals, self.vectors.weight)  # [m, K]
        if self.training and self.epsilon > 0:
            return sinkhorn(distances, self.epsilon, self.iterations).argmax(1)
        return distances.argmin(1)


def separation_loss(latents: Tensor, margin: Tensor | float) -> Tensor:
    """Penalise close items: mean_i max(0, log(margin / distance of i to its nearest distinct neighbour)).

    The nearest-neighbour entropy estimate that spreads vectors out before quantization (Sablayrolles et al., *Spreading
    Vectors for Similarity Search*, 2019, equation 2), cut off at a margin so that distant items stay where they are.

    Args:
        latents: `[m, e]`.
        margin: sufficient distance, not negative; with no neighbour closer the loss is 0. Items within a thousandth of
            it count as equal and are no neighbours.
    """
    neighbours, distances = [], []
    with torch.no_grad():
        for rows in latents.split(_ROWS):
            # Differences, not products, whose rounding would give equal items a distance.
            found = torch.cdist(rows, latents, compute_mode="donot_use_mm_for_euclid_dist")  # [rows, m]
            nearest = found.masked_fill(found <= _EQUAL * margin, torch.inf).min(1)
            neighbours.append(nearest.indices)
            distances.append(nearest.values)
    near = torch.cat(distances) < margin
    pairs = latents[near] - latents[torch.cat(neighbours)[near]]  # [near, e]
    return torch.log(margin / pairs.norm(dim=1)).sum() / len(latents)


def _perceptron(sizes: Sequence[int]) -> nn.Sequential:
    """Linear layers with ReLU between them, Xavier-initialised as in LC-Rec."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        linear = nn.Linear(inputs, outputs)
        nn.init.xavier_normal_(linear.weight)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])
