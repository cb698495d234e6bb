"""How a token is chosen from the target's distribution: greedily, or with noise that belongs to the request."""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from padrec.catalog import InputError
from padrec.decoding.device.compiled import compiled

# Constants of the splitmix64 generator, as signed 64-bit integers.
_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_MIX_2 = 0x94D049BB133111EB - (1 << 64)

# Temperature of a draft's guess at a choice whose noise is known. Below 1, because that noise is no longer uncertain,
# only the target is: trees of four drafts on two data sets came out longer with a half than with 1.
_GUESS_TEMPERATURE = 0.5


def masked_log_softmax(logits: Tensor, allowed: Tensor | None) -> Tensor:
    """Log-probabilities renormalised over the allowed tokens.

    Args:
        logits: `[*, V]`, any floating type.
        allowed: bool `[*, V]`, or None where every token is allowed.

    Returns:
        `[*, V]`, float32 (float64 for float64 logits), at most 0; minus infinity where a token is not allowed. A row
        that allows nothing, as behind the end of a list, is returned unmasked: it is never used, and NaN would spread.
    """
    logits = logits if logits.dtype == torch.float64 else logits.float()
    if allowed is not None:
        logits = logits.masked_fill(~(allowed | ~allowed.any(-1, keepdim=True)), -torch.inf)
    return logits.log_softmax(-1)


@dataclass(frozen=True)
class Sampling:
    """The rule by which tokens are chosen.

    With a temperature above 0 a token is drawn by the Gumbel-max rule, and the noise is a function of (request key,
    position in the list, token) alone. So a list does not depend on its batch neighbours, and a speculative decoder
    that looks up the noise of the position it verifies draws the very token that the autoregressive decoder draws:
    its lists are equal token by token, hence equal in distribution.

    Args:
        temperature: 0 for greedy decoding, else the softmax temperature.
        top_k: keep only the k most probable tokens; None keeps all.
        top_p: keep the smallest set of most probable tokens that reaches this probability, in (0, 1].

    Raises:
        InputError: a value outside its range.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise InputError(f"temperature {self.temperature}: expected 0 (greedy) or more")
        if self.top_k is not None and self.top_k < 1:
            raise InputError(f"top_k {self.top_k}: expected at least 1, or null")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p {self.top_p}: expected more than 0 and at most 1")

    def keys(self, batch: int, generator: torch.Generator, device: torch.device) -> Tensor:
        """One random key for each request, int64 `[batch]`, drawn from `generator` (on the CPU)."""
        return torch.randint(-(2**62), 2**62, (batch,), generator=generator).to(device)

    def distribution(self, log_probs: Tensor) -> Tensor:
        """Log-probabilities `[*, V]` after temperature, top-k and top-p; not defined for greedy decoding."""
        scaled = (log_probs / self.temperature).log_softmax(-1)
        if self.top_k is not None and self.top_k < scaled.shape[-1]:
            least = scaled.topk(self.top_k, -1).values[..., -1:]
            scaled = scaled.masked_fill(scaled < least, -torch.inf).log_softmax(-1)
        if self.top_p < 1:
            ordered, order = scaled.sort(dim=-1, descending=True, stable=True)
            before = ordered.exp().cumsum(-1) - ordered.exp()  # probability of all tokens ahead
            outside = torch.zeros_like(scaled, dtype=torch.bool).scatter(-1, order, before >= self.top_p)
            scaled = scaled.masked_fill(outside, -torch.inf).log_softmax(-1)
        return scaled

    def choice(self, keys: Tensor, first_position: Tensor, max_depth: int, vocabulary_size: int) -> "Choice":
        """Make what decides all tokens of one round.

        Args:
            keys: request keys, int64 `[B]`.
            first_position: position in the list of the token that a node at depth 0 chooses, int64 `[B]`.
            max_depth: D, the deepest node of the round.
            vocabulary_size: V.
        """
        if self.temperature == 0:
            return Choice(self, None)
        # Nodes at one depth share their position, hence their noise: it is made once for each depth.
        positions = first_position[:, None] + torch.arange(max_depth + 1, device=keys.device)  # [B, D + 1]
        return Choice(self, gumbel_noise(keys, positions, vocabulary_size))


@dataclass(frozen=True)
class Choice:
    """What decides the tokens of one round: for the target, and for drafts that guess what it will choose.

    Attributes:
        sampling: the rule.
        noise: of the tokens chosen at depth 0 … D, float32 `[B, D + 1, V]`; None for greedy decoding.
    """

    sampling: Sampling
    noise: Tensor | None

    @property
    def cuts_off(self) -> bool:
        """Whether tokens that are allowed cannot be chosen for want of probability; a greedy choice takes the best."""
        return self.noise is not None and (self.sampling.top_k is not None or self.sampling.top_p < 1)

    def choose(self, log_probs: Tensor, depths: Tensor) -> Tensor:
        """The target's token at every node, int64 `[B, N]`: the one with the highest score."""
        return self.scores(log_probs, depths).argmax(-1)

    def scores(self, log_probs: Tensor, depths: Tensor) -> Tensor:
        """What the token at every node is chosen by, `[B, N, V]`; minus infinity where a token cannot be chosen.

        Args:
            log_probs: of the target, `[B, N, V]`.
            depths: depth of each node, int64 `[B, N]`, 0 … D.
        """
        if self.noise is None:
            return log_probs
        noise = self.noise.gather(1, depths[..., None].expand(-1, -1, log_probs.shape[-1]))
        return self.sampling.distribution(log_probs) + noise.to(log_probs.dtype)

    def log_chances(
        self, logits: Tensor, allowed: Tensor | None, depth: int, greedy_temperature: float = 1.0
    ) -> Tensor:
        """How likely the target is to choose each token, by the draft's logits and the noise that the target will use.

        The noise is known, only the target's probabilities are not: the draft's stand in for them. Top-k and top-p do
        not apply, since what the draft would cut off the target may keep.

        Args:
            logits: of the draft behind nodes of one depth, `[B, k, V]`.
            allowed: bool `[B, k, V]`, or None where every token is allowed.
            depth: of these nodes.
            greedy_temperature: where decoding is greedy, what the draft's log-probabilities are divided by.

        Returns:
            Log-probabilities `[B, k, V]`, at most 0; the draft's own where decoding is greedy and its temperature 1.
        """
        noise = None if self.noise is None else self.noise[:, depth, None]
        guess = Guess.of(self.sampling, greedy_temperature)
        return guess.log_chances(masked_log_softmax(logits, allowed), noise)


@dataclass(frozen=True)
class Guess:
    """How a draft's logits say what the target will choose: the softmax of both, scaled and added up.

    Attributes:
        logit_scale: of the logits, or of log-probabilities, which differ from them by what the softmax takes out.
        noise_scale: of the noise.
    """

    logit_scale: float
    noise_scale: float

    @classmethod
    def of(cls, sampling: Sampling, greedy_temperature: float) -> "Guess":
        """See `Choice.log_chances`."""
        if sampling.temperature == 0:
            return cls(1 / greedy_temperature, 0.0)
        return cls(1 / (sampling.temperature * _GUESS_TEMPERATURE), 1 / _GUESS_TEMPERATURE)

    def log_chances(self, log_probs: Tensor, noise: Tensor | None) -> Tensor:
        """From the draft's log-probabilities `[*]` and noise that has, or expands to, their shape; None is greedy."""
        if noise is None:
            return log_probs if self.logit_scale == 1 else (log_probs * self.logit_scale).log_softmax(-1)
        noisy = log_probs * self.logit_scale + noise.to(log_probs.dtype) * self.noise_scale
        return noisy.log_softmax(-1)


def gumbel_noise(keys: Tensor, positions: Tensor, vocabulary_size: int) -> Tensor:
    """Standard Gumbel noise as a function of (key, position, token).

    Args:
        keys: int64 `[B]`.
        positions: int64 `[B, P]`.
        vocabulary_size: V.

    Returns:
        float32 `[B, P, V]`; equal arguments give equal noise, on every device.
    """
    return _gumbel_noise(keys, positions, _token_steps(vocabulary_size, keys.device))


@compiled
def _gumbel_noise(keys: Tensor, positions: Tensor, token_steps: Tensor) -> Tensor:
    base = _mix(keys[:, None] + _mix(positions * _GOLDEN))
    # 23 random bits: with the half added float32 still holds them exactly, so that the uniform never reaches 1.
    bits = _shift(_mix(base[..., None] + token_steps), 41)
    uniform = (bits.float() + 0.5) * 2.0**-23
    return -(-uniform.log()).log()


@cache
def _token_steps(vocabulary_size: int, device: torch.device) -> Tensor:
    """The generator's state advanced by each token, int64 `[V]`.

    Kept, and not made where it is needed: the compiler takes a range times a constant for an index of 32 bits.
    """
    with torch.inference_mode(False):
        return torch.arange(1, vocabulary_size + 1, device=device) * _GOLDEN


def _mix(x: Tensor) -> Tensor:
    """The finaliser of splitmix64 (Steele, Lea and Flood, 2014) on int64 tensors, whose products wrap around."""
    x = (x ^ _shift(x, 30)) * _MIX_1
    x = (x ^ _shift(x, 27)) * _MIX_2
    return x ^ _shift(x, 31)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical shift to the right: torch's own keeps the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
