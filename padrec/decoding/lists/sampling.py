"""How tokens are chosen: greedily, or with noise that is a function of the request."""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from padrec.catalog import NonNegativeFloat, NonZeroShare, PositiveInt, check_arguments
from padrec.decoding.device.compiled import compiled
from padrec.decoding.lists.tensor_record import pick

# Constants of the splitmix64 generator, as signed 64-bit integers.
_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_MIX_2 = 0x94D049BB133111EB - (1 << 64)

# Temperature of a draft's guess if the noise is known, below 1 because only the target's logits remain uncertain: four
# drafts on two data sets reached longer acceptance lengths with 0.5 than with 1.
_GUESS_TEMPERATURE = 0.5


def masked_log_softmax(logits: Tensor, allowed: Tensor | None) -> Tensor:
    """Log-probabilities renormalised over the allowed tokens.

    Args:
        logits: `[*, V]`, any floating type.
        allowed: bool `[*, V]`; None allows every token.

    Returns:
        `[*, V]`, float32 (float64 for float64 logits), at most 0; minus infinity for tokens that are not allowed. A row
        that allows nothing, as after the end of a list, is not masked: it is never used, and NaN would spread.
    """
    logits = logits if logits.dtype == torch.float64 else logits.float()
    if allowed is not None:
        logits = logits.masked_fill(~(allowed | ~allowed.any(-1, keepdim=True)), -torch.inf)
    return logits.log_softmax(-1)


@dataclass(frozen=True)
class Sampling:
    """The sampling rule.

    Above temperature 0 tokens are drawn by the Gumbel-max rule, with noise that depends only on the request's key, the
    position in the list and the token. So a list does not depend on its batch neighbours, and a speculative decoder
    draws the same tokens as the autoregressive one.

    Args:
        temperature: softmax temperature; 0 decodes greedily.
        top_k: keep only the k most probable tokens; None keeps all.
        top_p: keep the smallest set of most probable tokens that reaches this probability, in (0, 1].

    Raises:
        InputError: a value outside its range.
    """

    temperature: NonNegativeFloat = 0.0
    top_k: PositiveInt | None = None
    top_p: NonZeroShare = 1.0

    def __post_init__(self) -> None:
        check_arguments(Sampling, vars(self))

    def keys(self, batch: int, generator: torch.Generator, device: torch.device) -> Tensor:
        """Draw a random key for each request from a CPU generator, int64 `[batch]`."""
        return torch.randint(-(2**62), 2**62, (batch,), generator=generator).to(device)

    def distribution(self, log_probs: Tensor) -> Tensor:
        """Log-probabilities `[*, V]` after temperature, top-k and top-p; undefined for temperature 0."""
        scaled = (log_probs / self.temperature).log_softmax(-1)
        if self.top_k is not None and self.top_k < scaled.shape[-1]:
            least = scaled.topk(self.top_k, -1).values[..., -1:]
            scaled = scaled.masked_fill(scaled < least, -torch.inf).log_softmax(-1)
        if self.top_p < 1:
            ordered, order = scaled.sort(dim=-1, descending=True, stable=True)
            before = ordered.exp().cumsum(-1) - ordered.exp()  # probability of all better tokens
            outside = torch.zeros_like(scaled, dtype=torch.bool).scatter(-1, order, before >= self.top_p)
            scaled = scaled.masked_fill(outside, -torch.inf).log_softmax(-1)
        return scaled

    def choice(self, keys: Tensor, first_position: Tensor, max_depth: int, vocabulary_size: int) -> "Choice":
        """Make the noise of one round, whose deepest node is at `max_depth`.

        `keys` are those of the requests, int64 `[B]`, `first_position` the list position of the token after the root,
        int64 `[B]`.
        """
        if self.temperature == 0:
            return Choice(self, None)
        # Nodes of one depth share their position, hence their noise.
        positions = first_position[:, None] + torch.arange(max_depth + 1, device=keys.device)  # [B, D + 1]
        return Choice(self, gumbel_noise(keys, positions, vocabulary_size))


@dataclass(frozen=True)
class Choice:
    """Sampling rule and noise of one round: decide the target's tokens, and help drafts to guess them."""

    sampling: Sampling
    noise: Tensor | None  # for tokens after nodes of depth 0 … D, float32 [B, D + 1, V]; None for greedy decoding

    def choose(self, log_probs: Tensor, depths: Tensor, tokens: Tensor | None = None) -> Tensor:
        """The place of the highest score after every node, int64 `[B, N]`; arguments as in `scores`."""
        return self.scores(log_probs, depths, tokens).argmax(-1)

    def scores(self, log_probs: Tensor, depths: Tensor, tokens: Tensor | None = None) -> Tensor:
        """Scores of tokens after every node, `[B, N, C]`; minus infinity for tokens that cannot be chosen.

        Args:
            log_probs: the target's, `[B, N, C]`.
            depths: the nodes' depths, int64 `[B, N]`, 0 … D.
            tokens: which tokens they belong to, int64 `[B, N, C]`; None: the whole vocabulary in order.
        """
        if self.noise is None:
            return log_probs
        noise = pick(self.noise, depths)
        noise = noise if tokens is None else noise.gather(-1, tokens)
        return self.sampling.distribution(log_probs) + noise.to(log_probs.dtype)

    def log_chances(
        self, logits: Tensor, allowed: Tensor | None, depth: int, greedy_temperature: float = 1.0
    ) -> Tensor:
        """Estimate how likely the target is to choose each token.

        The noise is known; the draft's probabilities stand in for the target's. Top-k and top-p do not apply, because
        the target may keep what the draft would cut off.

        Args:
            logits: the draft's after nodes of one depth, `[B, k, V]`.
            allowed: bool `[B, k, V]`; None allows every token.
            depth: the nodes' depth.
            greedy_temperature: divides the draft's log-probabilities in greedy decoding; at 1 they are the result.

        Returns:
            Log-probabilities `[B, k, V]`, at most 0; minus infinity after nodes whose logits are not finite.
        """
        noise = None if self.noise is None else self.noise[:, depth, None]
        guess = Guess.of(self.sampling, greedy_temperature)
        return guess.log_chances(masked_log_softmax(logits, allowed), noise)


@dataclass(frozen=True)
class Guess:
    """Weights by which a draft guesses the target's choice: softmax(logits · `logit_scale` + noise · `noise_scale`)."""

    logit_scale: float  # of logits or log-probabilities, which the softmax maps to the same
    noise_scale: float

    @classmethod
    def of(cls, sampling: Sampling, greedy_temperature: float) -> "Guess":
        """Weights for a sampling rule; see `Choice.log_chances`."""
        if sampling.temperature == 0:
            return cls(1 / greedy_temperature, 0.0)
        return cls(1 / (sampling.temperature * _GUESS_TEMPERATURE), 1 / _GUESS_TEMPERATURE)

    def log_chances(self, log_probs: Tensor, noise: Tensor | None) -> Tensor:
        """Log-chances from the draft's log-probabilities and the noise, which broadcasts; None decodes greedily."""
        if noise is not None:
            noisy = log_probs * self.logit_scale + noise.to(log_probs.dtype) * self.noise_scale
            log_probs = noisy.log_softmax(-1)
        elif self.logit_scale != 1:
            log_probs = (log_probs * self.logit_scale).log_softmax(-1)
        # NaN would come before the root of a tree.
        return log_probs.nan_to_num(-torch.inf, neginf=-torch.inf)


def gumbel_noise(keys: Tensor, positions: Tensor, vocabulary_size: int) -> Tensor:
    """Standard Gumbel noise, float32 `[B, P, V]`, the same on every device.

    It is a function of key, int64 `[B]`, position, int64 `[B, P]`, and token.
    """
    return token_noise(keys, positions, token_steps(vocabulary_size, keys.device))


@compiled
def token_noise(keys: Tensor, positions: Tensor, steps: Tensor) -> Tensor:
    """See `gumbel_noise`, for some tokens: `steps` are entries of `token_steps`, `[V]` or `[B, P, C]`."""
    base = mix64(keys[:, None] + mix64(positions * _GOLDEN))
    # 23 random bits and a half fit float32 exactly, so the uniform never rounds to 1.
    bits = _shift(mix64(base[..., None] + steps), 41)
    uniform = (bits.float() + 0.5) * 2.0**-23
    return -(-uniform.log()).log()


@cache
def token_steps(vocabulary_size: int, device: torch.device) -> Tensor:
    """The generator's increment for each token, int64 `[V]`.

    Made outside compiled code: the compiler would compute a range times a constant as a 32-bit index.
    """
    with torch.inference_mode(False):
        return torch.arange(1, vocabulary_size + 1, device=device) * _GOLDEN


def mix64(x: Tensor) -> Tensor:
    """The finaliser of splitmix64 (Steele, Lea and Flood, 2014), a bijection of int64 `[*]`; products wrap around."""
    x = (x ^ _shift(x, 30)) * _MIX_1
    x = (x ^ _shift(x, 27)) * _MIX_2
    return x ^ _shift(x, 31)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift; torch's keeps the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
