"""What AtSpeed and its rivals teach a draft about the codes that the catalog allows; feature drafts may learn it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from padrec.catalog import CatalogTrie, NonNegativeFloat, PositiveFloat, PositiveInt, check_arguments

# The log-probability of what is impossible. Finite: 0 times minus infinity would be no number.
_IMPOSSIBLE = -1e9


@dataclass(frozen=True)
class CodeChoices:
    """Distributions over the codes that the catalog allows after M prefixes."""

    draft: Tensor  # log q, [M, C]
    target: Tensor  # log p, [M, C]
    following: Tensor  # column of the code that follows in the sequence, int64 [M]

    @classmethod
    def of(
        cls, draft_logits: Tensor, target_logits: Tensor, nodes: Tensor, tokens: Tensor, trie: CatalogTrie
    ) -> "CodeChoices":
        """From logits `[M, V]` after the prefixes at trie nodes `[M]`, of which the codes `[M]` follow, both int64."""
        children, _, present = trie.children(nodes)  # [M, C]
        return cls(
            _log_probs(draft_logits, children, present),
            _log_probs(target_logits, children, present),
            (present & (children == tokens[:, None])).int().argmax(-1),
        )

    def divergence(self) -> Tensor:
        """Forward Kullback-Leibler divergences Σ_x p(x) log(p(x) / q(x)), `[M]`."""
        return functional.kl_div(self.draft, self.target, reduction="none", log_target=True).sum(-1)

    def at_temperature(self, temperature: float) -> "CodeChoices":
        """The distributions of logits divided by a temperature."""
        if temperature == 1:
            return self
        draft, target = ((values / temperature).log_softmax(-1) for values in (self.draft, self.target))
        return CodeChoices(draft, target, self.following)


def _log_probs(logits: Tensor, children: Tensor, present: Tensor) -> Tensor:
    """Log-probabilities of the codes `[M, C]` that are present, after logits `[M, V]`."""
    return logits.gather(-1, children).masked_fill(~present, _IMPOSSIBLE).log_softmax(-1)


def prefix_nodes(trie: CatalogTrie, codes: Tensor) -> Tensor:
    """The trie node before each code of items whose code tokens are `codes`, both int64 `[*, L]`."""
    nodes = [torch.zeros_like(codes[..., 0])]
    for code in codes.unbind(-1)[:-1]:
        nodes.append(trie.child(nodes[-1], code))
    return torch.stack(nodes, -1)


def nodes_before(trie: CatalogTrie, tokens: Tensor, slots: Tensor) -> Tensor:
    """The trie node before each code of sequences, from tokens and slots, all int64 `[B, T]`; elsewhere the root."""
    nodes = torch.zeros_like(tokens)
    for slot in range(1, trie.n_slots):
        nodes = torch.where(slots == slot, trie.child(nodes, tokens).roll(1, 1), nodes)
    return nodes


class DistillationObjective(ABC):
    """The loss of a draft's distribution q over the codes after a prefix, given the target's distribution p.

    An objective is a class of its own, with primitives as constructor arguments; a config names it by `class_path`.

    Attributes:
        on_beams: whether the prefixes are those of the target's own beams; False for those of the logged items.
    """

    on_beams: bool

    @abstractmethod
    def __call__(self, choices: CodeChoices) -> Tensor:
        """The loss after each of M prefixes, `[M]`, in the precision of the distributions."""


@dataclass(frozen=True)
class TopKAlignment(DistillationObjective):
    """AtSpeed-S, for strict verification (Lin et al., arXiv 2410.05165): the K codes that the draft finds best.

        L = Σ_{x in T} q(x) log(q(x) / p(x)) + p(x_K) H(q)

    with T the K best codes of q and x_K the K-th of them, p and q normalised over T, H the entropy, and p(x_K) without
    gradient. The reverse Kullback-Leibler divergence keeps the draft to what the target finds likely among T; the
    second term sharpens it where the target finds even the K-th code likely.

    The temperature divides logits. One version of the released code divides probabilities instead, which at τ = 1 makes
    both distributions nearly uniform.

    Args:
        top_k: K, at least 1.
        temperature: τ, above 0.

    Raises:
        InputError: an argument is out of range.
    """

    top_k: PositiveInt = 20
    temperature: PositiveFloat = 1.0

    on_beams = True

    def __post_init__(self) -> None:
        check_arguments(TopKAlignment, vars(self))

    def __call__(self, choices: CodeChoices) -> Tensor:
        """See `DistillationObjective`."""
        choices = choices.at_temperature(self.temperature)
        log_q, best = choices.draft.topk(min(self.top_k, choices.draft.shape[-1]), dim=-1)  # [M, K]
        log_p = choices.target.gather(-1, best).log_softmax(-1)
        log_q = log_q.log_softmax(-1)
        q = log_q.exp()
        return (q * (log_q - log_p)).sum(-1) - log_p[..., -1].exp().detach() * (q * log_q).sum(-1)


@dataclass(frozen=True)
class TotalVariation(DistillationObjective):
    """AtSpeed-R, for sampled verification (arXiv 2410.05165): the chance that a sample of the draft is rejected.

        L = ½ Σ_x |q(x) - p(x)|

    Both are softmaxes of logits / τ. At the released τ of 0.001 they are nearly one-hot and have hardly a gradient:
    use the temperature at which items will be sampled.

    Args:
        temperature: τ, above 0.

    Raises:
        InputError: the temperature is not above 0.
    """

    temperature: PositiveFloat = 1.0

    on_beams = True

    def __post_init__(self) -> None:
        check_arguments(TotalVariation, vars(self))

    def __call__(self, choices: CodeChoices) -> Tensor:
        """See `DistillationObjective`."""
        choices = choices.at_temperature(self.temperature)
        return 0.5 * (choices.draft.exp() - choices.target.exp()).abs().sum(-1)


class TVDKD(TotalVariation):
    """Distillation by total variation (Wen et al., arXiv 2307.15190): that of `TotalVariation`, on the logged items."""

    on_beams = False


class WordKD(DistillationObjective):
    """Word-level distillation (Kim and Rush, arXiv 1606.07947): forward divergence on the logged items.

    L = Σ_x p(x) log(p(x) / q(x))
    """

    on_beams = False

    def __call__(self, choices: CodeChoices) -> Tensor:
        """See `DistillationObjective`."""
        return choices.divergence()


class SeqKD(DistillationObjective):
    """Sequence-level distillation (Kim and Rush, arXiv 1606.07947): cross-entropy of the target's beams.

    L = -log q(y), with y the beam's next code
    """

    on_beams = True

    def __call__(self, choices: CodeChoices) -> Tensor:
        """See `DistillationObjective`."""
        return -choices.draft.gather(-1, choices.following[..., None])[..., 0]


class LogAcceptance(DistillationObjective):
    """The likelihood that a sample of the draft is accepted (LK losses, arXiv 2602.23881).

        L = -log Σ_x min(p(x), q(x))

    The sum is 1 minus the total variation. Unlike it, the logarithm has large gradients where the draft is far off.
    """

    on_beams = True

    def __call__(self, choices: CodeChoices) -> Tensor:
        """See `DistillationObjective`."""
        return -torch.minimum(choices.draft, choices.target).logsumexp(-1)


@dataclass(frozen=True)
class AdaptiveAcceptance(DistillationObjective):
    """Divergence where the draft is far off, and total variation where it is close (LK losses, arXiv 2602.23881).

        L = λ Σ_x p(x) log(p(x) / q(x)) + (1 - λ) (1 - A),   A = Σ_x min(p(x), q(x)),   λ = exp(-η A)

    with λ without gradient. In the paper A is the mean of a batch in λ; here λ is a prefix's own.

    Args:
        decay: η, at least 0.

    Raises:
        InputError: the decay is below 0.
    """

    decay: NonNegativeFloat = 3.0

    on_beams = True

    def __post_init__(self) -> None:
        check_arguments(AdaptiveAcceptance, vars(self))

    def __call__(self, choices: CodeChoices) -> Tensor:
        """See `DistillationObjective`."""
        accepted = torch.minimum(choices.draft, choices.target).exp().sum(-1)
        share = (-self.decay * accepted.detach()).exp()
        return share * choices.divergence() + (1 - share) * (1 - accepted)
