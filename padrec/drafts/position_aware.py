"""The position-aware part of PAD-Rec: which slot a token fills, and how far the draft has come without the target."""

import torch
from torch import Tensor, nn

from padrec.catalog import InputError


class PositionAwareEmbedding(nn.Module):
    """Adds an item-slot and a step embedding to a draft's fused input (PAD-Rec, arXiv 2604.27747, reconstructed).

        g = sigmoid(w · u + c)
        ũ = u + α P[slot] + g Q[step],   Q[0] = 0

    The slot is a token's place inside its item, the step the number of draft-made features behind it: 0 where the
    feature is the target's own, so that Q[0] is fixed at zero. At initialisation P = Q = w = c = 0 and α = 1: the
    output equals the input exactly, and gradients reach P and Q at once.

    Args:
        hidden_size: d.
        n_slot_states: slots that occur, L + 2.
        n_steps: S, steps told apart; deeper steps share the last embedding.
        slot_embeddings: whether there is a P.
        step_embeddings: whether there is a Q, with its gate.

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

    def step_term(self, fused: Tensor, step: int) -> Tensor | None:
        """The gated g Q[step], `[*, d]`, for fused inputs `[*, d]`; None at step 0 or without step embeddings."""
        if self.step_embedding is None or self.gate is None or step == 0:
            return None
        gate: Tensor = self.gate(fused).sigmoid()
        return gate * self.step_embedding[min(step, self.n_steps - 1) - 1]

    def forward(self, fused: Tensor, slots: Tensor, step: int) -> Tensor:
        """Add both terms.

        Args:
            fused: u, `[*, d]`.
            slots: int64 `[*]`.
            step: the step of all these inputs, at least 0.
        """
        slot_term = self.slot_term()
        result = fused if slot_term is None else fused + slot_term[slots]
        step_term = self.step_term(fused, step)
        return result if step_term is None else result + step_term
