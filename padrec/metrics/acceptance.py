"""How many draft tokens verification accepts, and where."""

from typing import Any, Literal

import torch
from torch import Tensor

from padrec.catalog import InputError
from padrec.metrics.exact_metric import ExactMetric


class AcceptanceLength(ExactMetric):
    """Acceptance length τ: mean tokens emitted per target pass, the target's own bonus token included.

    Total tokens ÷ total passes over all lists, so that long lists weigh more. The first token of a list comes from
    the prefill: neither it nor the prefill is counted. Without a draft τ is 1. NaN if there was no pass.

    Args:
        **kwargs: arguments of `torchmetrics.Metric`.

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
        self.add_state("emitted_tokens", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("emitting_passes", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, tokens: Tensor, target_passes: Tensor, counted: Tensor | None = None) -> None:
        """Add a batch of lists.

        Args:
            tokens: tokens of each list, the first one included, int64 `[B]`, each at least 1.
            target_passes: passes over each unfinished list, the prefill left out, int64 `[B]`.
            counted: bool `[B]`; False for rows that only pad the set. By default all rows count.

        Raises:
            InputError: shapes that differ.
        """
        if tokens.shape != target_passes.shape:
            raise InputError(
                f"tokens {list(tokens.shape)} and target passes {list(target_passes.shape)} differ in shape"
            )
        self.emitted_tokens = self.emitted_tokens + _sum_rows(tokens - 1, counted, n_dims=0)
        self.emitting_passes = self.emitting_passes + _sum_rows(target_passes, counted, n_dims=0)

    def compute(self) -> Tensor:
        """τ, float64 scalar."""
        return _ratio(self.emitted_tokens, self.emitting_passes)


class AcceptedPerPass(ExactMetric):
    """Mean draft tokens accepted per target pass, the target's bonus token not included.

    It is not always τ − 1: a list that ends with an accepted token leaves no room for the bonus token. NaN if there
    was no round.

    Args:
        **kwargs: arguments of `torchmetrics.Metric`.

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
        self.add_state("accepted_tokens", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("verifying_passes", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, accepted_lengths: Tensor, counted: Tensor | None = None) -> None:
        """Add a batch of lists.

        Args:
            accepted_lengths: rounds in which 0, 1, …, D draft tokens were accepted, int64 `[D + 1]` for the batch or
                `[B, D + 1]` for each row.
            counted: bool `[B]`; False for rows that only pad the set. By default all rows count.

        Raises:
            InputError: `counted` leaves rows out of counts that are summed over the batch already.
        """
        rounds = _sum_rows(accepted_lengths, counted, n_dims=1)
        depths = torch.arange(len(rounds), device=rounds.device)
        self.accepted_tokens = self.accepted_tokens + (rounds * depths).sum()
        self.verifying_passes = self.verifying_passes + rounds.sum()

    def compute(self) -> Tensor:
        """Accepted draft tokens ÷ target passes, float64 scalar."""
        return _ratio(self.accepted_tokens, self.verifying_passes)


class AcceptedLengths(ExactMetric):
    """Histogram of rounds by the number of draft tokens accepted in them.

    Args:
        max_depth: largest number of draft tokens that a round can accept, D; 0 without a draft.
        **kwargs: arguments of `torchmetrics.Metric`.

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
        self.add_state("rounds_by_accepted", torch.zeros(max_depth + 1, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, accepted_lengths: Tensor, counted: Tensor | None = None) -> None:
        """Add a batch of lists.

        Args:
            accepted_lengths: rounds in which 0, 1, … draft tokens were accepted, int64 `[D + 1]` for the batch or
                `[B, D + 1]` for each row.
            counted: bool `[B]`; False for rows that only pad the set. By default all rows count.

        Raises:
            InputError: another D, or `counted` leaves rows out of counts that are summed over the batch already.
        """
        rounds = _sum_rows(accepted_lengths, counted, n_dims=1)
        if rounds.shape != self.rounds_by_accepted.shape:
            raise InputError(
                f"counts of the shape {list(accepted_lengths.shape)}: expected {len(self.rounds_by_accepted)} in the "
                "last dimension"
            )
        self.rounds_by_accepted = self.rounds_by_accepted + rounds

    def compute(self) -> Tensor:
        """Rounds in which 0, 1, …, D draft tokens were accepted, int64 `[D + 1]`."""
        return self.rounds_by_accepted


class AcceptanceRate(ExactMetric):
    """Share of the tokens that verification came to that the draft had proposed, by slot, by depth or by both.

    Args:
        n_slots: number of slot states that tokens are told apart by, S.
        max_depth: largest draft depth, D; 0 without a draft.
        by: `slot` for a result `[S]`, `depth` for `[D]`, `slot_and_depth` for `[S, D]`.
        **kwargs: arguments of `torchmetrics.Metric`.

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
        counts = torch.zeros(n_slots, max_depth, dtype=torch.int64)
        self.add_state("attempted_tokens", counts, dist_reduce_fx="sum")
        self.add_state("accepted_of_attempted", counts.clone(), dist_reduce_fx="sum")

    def update(self, attempted: Tensor, accepted: Tensor, counted: Tensor | None = None) -> None:
        """Add a batch of lists.

        Args:
            attempted: tokens that verification came to, by slot and depth 1 … D, int64 `[S, D]` for the batch
                or `[B, S, D]` for each row.
            accepted: those of them that it accepted, of the same shape.
            counted: bool `[B]`; False for rows that only pad the set. By default all rows count.

        Raises:
            InputError: other shapes, or `counted` leaves rows out of counts that are summed over the batch already.
        """
        shape = self.attempted_tokens.shape
        if attempted.shape != accepted.shape or attempted.shape[-2:] != shape:
            raise InputError(
                f"attempted {list(attempted.shape)} and accepted {list(accepted.shape)}: expected the same shape, "
                f"with {shape[0]} slots and {shape[1]} depths in the last two dimensions"
            )
        tried, kept = (_sum_rows(counts, counted, n_dims=2) for counts in (attempted, accepted))
        self.attempted_tokens = self.attempted_tokens + tried
        self.accepted_of_attempted = self.accepted_of_attempted + kept

    def compute(self) -> Tensor:
        """Accepted ÷ attempted, float64 `[S]`, `[D]` or `[S, D]`; NaN where nothing was attempted."""
        attempted, accepted = self.attempted_tokens, self.accepted_of_attempted
        if self.by == "slot_and_depth":
            return _ratio(accepted, attempted)
        summed = 1 if self.by == "slot" else 0
        return _ratio(accepted.sum(dim=summed), attempted.sum(dim=summed))


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    return numerator.double() / denominator


def _sum_rows(counts: Tensor, counted: Tensor | None, n_dims: int) -> Tensor:
    """Sum over the counted rows of counts of `n_dims` dimensions, with a batch dimension before them or without."""
    if counts.ndim not in (n_dims, n_dims + 1):
        raise InputError(
            f"counts of the shape {list(counts.shape)}: expected {n_dims} dimensions, or the batch before them"
        )
    if counts.ndim == n_dims:
        if counted is not None and not bool(counted.all()):
            raise InputError(
                f"{int((~counted).sum())} rows are not to be counted, but the counts of shape {list(counts.shape)} are "
                "summed over the batch already: give them for each row, or leave these rows out when decoding"
            )
        return counts
    if counted is not None:
        counts = counts * counted.view(-1, *[1] * n_dims)
    return counts.sum(dim=0)
