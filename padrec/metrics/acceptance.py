"""How many draft tokens verification accepts, and where."""

from typing import Any, Literal

import torch
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from padrec.catalog import InputError
from padrec.metrics.exact_metric import ExactMetric


class AcceptanceLength(ExactMetric):
    """Acceptance length τ: mean tokens emitted per target pass, including the target's own bonus token.

    Total tokens ÷ total passes over all lists, so longer lists weigh more. The prefill and the first token, which it
    emits, are not counted. Without a draft τ is 1; NaN without passes.

    Example:
        >>> import torch
        >>> metric = AcceptanceLength()
        >>> metric.update(tokens=torch.tensor([9, 13]), target_passes=torch.tensor([2, 3]))
        >>> metric.compute().item()
        4.0
    """

    higher_is_better = True
    emitted_tokens: Tensor
    emitting_passes: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_sum("emitted_tokens")
        self.add_sum("emitting_passes")

    def update(self, tokens: Tensor, target_passes: Tensor, counted: Tensor | None = None) -> None:
        """Add a batch of lists.

        Args:
            tokens: tokens of each list including the first one, int64 `[B]`, each at least 1.
            target_passes: passes over each unfinished list without the prefill, int64 `[B]`.
            counted: bool `[B]`, False for padding rows; None counts all rows.
        """
        if tokens.shape != target_passes.shape:
            raise InputError(f"tokens {list(tokens.shape)} and passes {list(target_passes.shape)} differ in shape")
        self.emitted_tokens = self.emitted_tokens + _sum_rows(tokens - 1, counted, n_dims=0)
        self.emitting_passes = self.emitting_passes + _sum_rows(target_passes, counted, n_dims=0)

    def compute(self) -> Tensor:
        """τ, float64 scalar."""
        return self.emitted_tokens.double() / self.emitting_passes


class AcceptedPerPass(ExactMetric):
    """Mean draft tokens accepted per target pass, without the target's bonus token.

    This can differ from τ − 1: a list that ends with an accepted token has no bonus token. NaN without rounds.

    Example:
        >>> import torch
        >>> metric = AcceptedPerPass()
        >>> metric.update(accepted_lengths=torch.tensor([1, 0, 3]))  # one round accepted nothing, three rounds 2 tokens
        >>> metric.compute().item()
        1.5
    """

    higher_is_better = True
    accepted_tokens: Tensor
    verifying_passes: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_sum("accepted_tokens")
        self.add_sum("verifying_passes")

    def update(self, accepted_lengths: Tensor, counted: Tensor | None = None) -> None:
        """Add a batch of lists.

        Args:
            accepted_lengths: number of rounds that accepted 0, 1, …, D draft tokens, int64 `[D + 1]` for the batch or
                `[B, D + 1]` by row.
            counted: bool `[B]`, False for padding rows, which counts of a whole batch must not have; None counts all.
        """
        rounds = _sum_rows(accepted_lengths, counted, n_dims=1)
        depths = torch.arange(len(rounds), device=rounds.device)
        self.accepted_tokens = self.accepted_tokens + (rounds * depths).sum()
        self.verifying_passes = self.verifying_passes + rounds.sum()

    def compute(self) -> Tensor:
        """Accepted draft tokens ÷ target passes, float64 scalar."""
        return self.accepted_tokens.double() / self.verifying_passes


class AcceptedLengths(ExactMetric):
    """Histogram of rounds by the number of draft tokens they accepted.

    Args:
        max_depth: most draft tokens that a round can accept, D; 0 without a draft.

    Example:
        >>> import torch
        >>> metric = AcceptedLengths(max_depth=3)
        >>> metric.update(accepted_lengths=torch.tensor([1, 0, 3, 0]))
        >>> metric.compute()
        tensor([1, 0, 3, 0])
    """

    rounds_by_accepted: Tensor

    def __init__(self, max_depth: int, **kwargs: Any) -> None:
        super().__init__(result_shape=(max_depth + 1,), **kwargs)
        self.add_sum("rounds_by_accepted", max_depth + 1)

    def update(self, accepted_lengths: Tensor, counted: Tensor | None = None) -> None:
        """Add a batch of lists; the arguments are those of `AcceptedPerPass.update`, with this D."""
        rounds = _sum_rows(accepted_lengths, counted, n_dims=1)
        if rounds.shape != self.rounds_by_accepted.shape:
            found, expected = list(accepted_lengths.shape), len(self.rounds_by_accepted)
            raise InputError(f"counts of shape {found}, expected {expected} in the last dimension")
        self.rounds_by_accepted = self.rounds_by_accepted + rounds

    def compute(self) -> Tensor:
        """Number of rounds that accepted 0, 1, …, D draft tokens, int64 `[D + 1]`."""
        return self.rounds_by_accepted


class UsersByPasses(ExactMetric):
    """Histogram of users by their target passes after the first one.

    Example:
        >>> import torch
        >>> metric = UsersByPasses()
        >>> metric.update(target_passes=torch.tensor([0, 2, 0]))
        >>> metric.compute()
        tensor([2, 0, 1])
    """

    passes: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(result_shape=(-1,), **kwargs)
        self.add_state("passes", [], dist_reduce_fx="cat")

    def update(self, target_passes: Tensor, counted: Tensor | None = None) -> None:
        """Add a batch of users; the arguments are those of `AcceptanceLength.update`."""
        found = target_passes if counted is None else target_passes[counted]
        # float64, since a process without users sends its empty list as `self.dtype`.
        self.passes.append(found.double().to(self.device))

    def compute(self) -> Tensor:
        """Number of users with 0, 1, …, most passes, int64 `[most + 1]`; empty without users."""
        found = dim_zero_cat(self.passes) if len(self.passes) else torch.empty(0, device=self.device)
        return found.long().bincount()


class AcceptanceRate(ExactMetric):
    """Share of the tokens reached by verification that the draft had proposed, by slot, by depth or by both.

    Args:
        n_slots: number of slot states, S.
        max_depth: largest draft depth, D; 0 without a draft.
        by: `slot` for a result `[S]`, `depth` for `[D]`, `slot_and_depth` for `[S, D]`.

    Example:
        >>> import torch
        >>> attempted = torch.tensor([[4, 0], [2, 2]])  # [slots, depths]
        >>> accepted = torch.tensor([[3, 0], [2, 1]])
        >>> metric = AcceptanceRate(n_slots=2, max_depth=2, by="slot_and_depth")
        >>> metric.update(attempted, accepted)
        >>> metric.compute()
        tensor([[0.7500,    nan],
                [1.0000, 0.5000]], dtype=torch.float64)
    """

    higher_is_better = True
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0
    attempted_tokens: Tensor
    accepted_of_attempted: Tensor

    def __init__(
        self, n_slots: int, max_depth: int, by: Literal["slot", "depth", "slot_and_depth"], **kwargs: Any
    ) -> None:
        shapes = {"slot": (n_slots,), "depth": (max_depth,), "slot_and_depth": (n_slots, max_depth)}
        if by not in shapes:
            raise InputError(f"AcceptanceRate: by is {by!r}, expected one of {', '.join(shapes)}")
        super().__init__(result_shape=shapes[by], **kwargs)
        self.by = by
        self.add_sum("attempted_tokens", n_slots, max_depth)
        self.add_sum("accepted_of_attempted", n_slots, max_depth)

    def update(self, attempted: Tensor, accepted: Tensor, counted: Tensor | None = None) -> None:
        """Add a batch of lists.

        Args:
            attempted: tokens reached by verification, by slot and depth 1 … D, int64 `[S, D]` for the batch or
                `[B, S, D]` by row.
            accepted: the accepted ones among them, same shape.
            counted: see `AcceptedPerPass.update`.
        """
        shape = self.attempted_tokens.shape
        if attempted.shape != accepted.shape or attempted.shape[-2:] != shape:
            found = f"attempted {list(attempted.shape)} and accepted {list(accepted.shape)}"
            expected = f"{shape[0]} slots and {shape[1]} depths in the last two dimensions"
            raise InputError(f"{found}: expected the same shape, with {expected}")
        self.attempted_tokens = self.attempted_tokens + _sum_rows(attempted, counted, n_dims=2)
        self.accepted_of_attempted = self.accepted_of_attempted + _sum_rows(accepted, counted, n_dims=2)

    def compute(self) -> Tensor:
        """Accepted ÷ attempted, float64 `[S]`, `[D]` or `[S, D]`; NaN where nothing was attempted."""
        attempted, accepted = self.attempted_tokens, self.accepted_of_attempted
        if self.by != "slot_and_depth":
            summed = 1 if self.by == "slot" else 0
            attempted, accepted = attempted.sum(dim=summed), accepted.sum(dim=summed)
        return accepted.double() / attempted


def _sum_rows(counts: Tensor, counted: Tensor | None, n_dims: int) -> Tensor:
    """Sum counts of `n_dims` dimensions over the counted rows of a batch, if they have a batch dimension."""
    if counts.ndim not in (n_dims, n_dims + 1):
        raise InputError(f"counts of shape {list(counts.shape)}, expected {n_dims} dimensions, or one more for a batch")
    if counts.ndim == n_dims:
        if counted is not None and not bool(counted.all()):
            raise InputError(
                f"{int((~counted).sum())} rows are not to be counted, but counts of shape {list(counts.shape)} are "
                "summed over the batch: pass them by row, or leave these rows out when decoding"
            )
        return counts
    if counted is not None:
        counts = counts * counted.view(-1, *[1] * n_dims)
    return counts.sum(dim=0)
