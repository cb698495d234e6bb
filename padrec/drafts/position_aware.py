"""PAD-Rec's position-aware part: what a draft is told about slots and draft steps."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from padrec.catalog import InputError, check_arguments

# A shuffled slot is drawn by the signs of this many units of the token's embedding.
_SIGNS = 16


@dataclass(frozen=True)
class PositionAware:
    """The form of the position-aware part: PAD-Rec's by default, or one to compare it with.

    Args:
        slots: whose slot P is read at: that of the `input` token, or of the `next` one, which the draft predicts.
            Controls with as many weights: `shuffled` slots depend on the token but not on its slot, a `constant` slot
            is a bias. None has no P.
        coefficient: α is a number, one for each `slot`, or a `vector` of one for each unit.
        steps: Q has a row for each `step`, or for each pair of `slot_and_step`, without a gate. None has no Q.
        gate: g is a number (`scalar`), or a `vector` of d numbers by a d × d map.
        gate_input: what g depends on: the `fused` input u, or the `feature`'s share of it, W_f f. None: g = 1, a
            constant that Q learns for each step.
        site: add P and Q `after` the fusion, or `before` it, to the embedding and the feature.

    Raises:
        InputError: an unknown form, or a table of slots and steps without the tokens' slots.
    """

    slots: Literal["input", "next", "shuffled", "constant"] | None = "input"
    coefficient: Literal["scalar", "slot", "vector"] = "scalar"
    steps: Literal["step", "slot_and_step"] | None = "step"
    gate: Literal["scalar", "vector"] = "scalar"
    gate_input: Literal["fused", "feature"] | None = "fused"
    site: Literal["after", "before"] = "after"

    def __post_init__(self) -> None:
        check_arguments(PositionAware, vars(self))
        if self.steps == "slot_and_step" and self.slots in (None, "shuffled"):
            raise InputError(f"PositionAware: steps is 'slot_and_step' and slots is {self.slots!r}, expected 'input'")

    @staticmethod
    def of(settings: "PositionAware | Mapping[str, Any] | None") -> "PositionAware":
        """The form with these settings; None is the base draft, without P and Q."""
        if isinstance(settings, PositionAware):
            return settings
        return PositionAware(slots=None, steps=None) if settings is None else PositionAware(**settings)


PAD_REC = PositionAware()


class PositionAwareEmbedding(nn.Module):
    """Adds an item-slot and a step embedding to a draft's fused input (PAD-Rec, arXiv 2604.27747, reconstructed).

        u = W [e; f] + b
        g = sigmoid(w · u + c)
        ũ = u + α P[slot] + g Q[step],   Q[0] = 0

    The slot is a token's place in its item. The step is the number of consecutive draft-made features before it, 0 for
    a feature of the target. At initialisation P = Q = w = c = 0 and α = 1: the output equals the input exactly, and
    gradients reach P and Q from the first step. `PositionAware` describes other forms.

    Args:
        hidden_size: d.
        n_slot_states: number of slots, L + 2.
        n_steps: S, distinct steps; deeper steps share the last embedding.
        form: what to add and how.

    Raises:
        InputError: step embeddings with fewer than two steps, which would have nothing to learn.
    """

    def __init__(self, hidden_size: int, n_slot_states: int, n_steps: int, form: PositionAware = PAD_REC) -> None:
        super().__init__()
        if form.steps is not None and n_steps < 2:
            raise InputError(f"step embeddings for {n_steps} draft step: expected at least 2 unrolled steps")
        self.n_steps, self.n_slot_states, self.form = n_steps, n_slot_states, form
        joint = form.steps == "slot_and_step"
        self.slot_embedding = self.slot_coefficient = self.step_embedding = self.gate = None
        if form.slots is not None:
            shapes: dict[str, tuple[int, ...]] = {"scalar": (), "slot": (n_slot_states, 1), "vector": (hidden_size,)}
            self.slot_embedding = nn.Parameter(torch.zeros(n_slot_states, hidden_size))
            self.slot_coefficient = nn.Parameter(torch.ones(shapes[form.coefficient]))
        if form.steps is not None:
            self.step_embedding = nn.Parameter(torch.zeros(n_steps - 1, *[n_slot_states] * joint, hidden_size))
        if form.steps == "step" and form.gate_input is not None:
            self.gate = nn.Linear(hidden_size, 1 if form.gate == "scalar" else hidden_size)
            nn.init.zeros_(self.gate.weight)
            nn.init.zeros_(self.gate.bias)

    def slot_term(self, fusion: nn.Linear, step: int) -> Tensor | None:
        """What each slot adds, `[L + 2, d]`: α P, with the row of a joint table; None without slot embeddings."""
        if self.slot_embedding is None or self.slot_coefficient is None:
            return None
        table = self.slot_coefficient * self.slot_embedding
        if self.step_embedding is not None and self.step_embedding.ndim > 2 and step > 0:
            table = table + self.step_embedding[min(step, self.n_steps - 1) - 1]
        if self.form.slots == "next":  # the separator follows the last code, a first code all else
            table = torch.cat([table[1:-1], table[:1], table[:1]])
        if self.form.slots == "constant":
            table = table[:1].expand_as(table)
        return functional.linear(table, fusion.weight[:, : table.shape[1]]) if self.form.site == "before" else table

    def step_term(self, fusion: nn.Linear, step: int) -> Tensor | None:
        """Q[step], `[d]`; None at step 0, without step embeddings or with a joint table."""
        if self.step_embedding is None or self.step_embedding.ndim > 2 or step == 0:
            return None
        row = self.step_embedding[min(step, self.n_steps - 1) - 1]
        return functional.linear(row, fusion.weight[:, len(row) :]) if self.form.site == "before" else row

    def shuffled_slots(self, embeddings: Tensor) -> Tensor:
        """Slots that depend on tokens alone, int64 `[*]`, for embeddings `[*, d]`."""
        signs = embeddings[..., :_SIGNS] > 0
        return (signs * 2 ** torch.arange(signs.shape[-1], device=signs.device)).sum(-1) % self.n_slot_states

    def forward(self, fusion: nn.Linear, embeddings: Tensor, features: Tensor, slots: Tensor, step: int) -> Tensor:
        """Fuse token and feature, and add both terms.

        Args:
            fusion: W and b, from 2 d to d units.
            embeddings: e, `[*, d]`.
            features: f, `[*, d]`.
            slots: int64 `[*]`.
            step: of all these inputs, at least 0.

        Returns:
            ũ, `[*, d]`.
        """
        fused: Tensor = fusion(torch.cat([embeddings, features], dim=-1))
        result = fused
        slot_term, step_term = self.slot_term(fusion, step), self.step_term(fusion, step)
        if slot_term is not None:
            result = result + slot_term[self.shuffled_slots(embeddings) if self.form.slots == "shuffled" else slots]
        if step_term is None:
            return result
        if self.gate is None:
            return result + step_term
        read = fused
        if self.form.gate_input == "feature":
            read = functional.linear(features, fusion.weight[:, features.shape[-1] :])
        gated: Tensor = self.gate(read).sigmoid() * step_term
        return result + gated
