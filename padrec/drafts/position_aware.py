"""PAD-Rec's position-aware part: what a draft is told about slots and draft steps."""

import torch
from torch import Tensor, nn

from padrec.catalog import InputError


class PositionAwareEmbedding(nn.Module):
    """Adds an item-slot and a step embedding to a draft's fused input (PAD-Rec, arXiv 2604.27747, reconstructed).

        g = sigmoid(w · u + c)
        ũ = u + α P[slot] + g Q[step],   Q[0] = 0

    The slot is a token's place in its item. The step is the number of consecutive draft-made features before it, 0 for
    a feature of the target. At initialisation P = Q = w = c = 0 and α = 1: the output equals the input exactly, and
    gradients reach P and Q from the first step.

    Args:
        hidden_size: d.
        n_slot_states: number of slots, L + 2.
        n_steps: S, distinct steps; deeper steps share the last embedding.
        slot_embeddings: whether to have P.
        step_embeddings: whether to have Q and its gate.

    Raises:
        InputError: step embeddings with fewer than two steps, which would have nothing to learn.
    """

    def __init__(
        self,
        hidden_size: int,
        n_slot_states: int,
        n_steps: int,
        *,
        slot_embeddings: bool = True,
        step_embeddings: bool = True,
    ) -> None:
        super().__init__()
        if step_embeddings and n_steps < 2:
            raise InputError(f"step embeddings for {n_steps} draft step: expected at least 2 unrolled steps")
        self.n_steps = n_steps
        self.slot_embedding = nn.Parameter(torch.zeros(n_slot_states, hidden_size)) if slot_embeddings else None
        self.slot_coefficient = nn.Parameter(torch.ones(())) if slot_embeddings else None
        self.step_embedding = nn.Parameter(torch.zeros(n_steps - 1, hidden_size)) if step_embeddings else None
        self.gate = nn.Linear(hidden_size, 1) if step_embeddings else None
        if self.gate is not None:
            nn.init.zeros_(self.gate.weight)
            nn.init.zeros_(self.gate.bias)

    def slot_term(self) -> Tensor | None:
        """α P, `[L + 2, d]`; None without slot embeddings."""
        if self.slot_embedding is None or self.slot_coefficient is None:
            return None
        return self.slot_coefficient * self.slot_embedding

    def embedding_of(self, step: int) -> Tensor | None:
        """Q[step], `[d]`; None at step 0 or without step embeddings."""
        if self.step_embedding is None or step == 0:
            return None
        return self.step_embedding[min(step, self.n_steps - 1) - 1]

    def forward(self, fused: Tensor, slots: Tensor, step: int) -> Tensor:
        """Add both terms.

        Args:
            fused: u, `[*, d]`.
            slots: int64 `[*]`.
            step: of all these inputs, at least 0.

        Returns:
            ũ, `[*, d]`.
        """
        result, slot_term, step_embedding = fused, self.slot_term(), self.embedding_of(step)
        if slot_term is not None:
            result = result + slot_term[slots]
        if self.gate is not None and step_embedding is not None:
            result = result + self.gate(fused).sigmoid() * step_embedding
        return result
