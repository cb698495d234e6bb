import math
from itertools import pairwise, product

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import chisquare, kstest

from padrec.decoding import Choice, Sampling, gumbel_noise, masked_log_softmax
from tests.reference import sampling_law

# Chance of a false alarm of each statistical test; their seeds are fixed, so that they pass or fail for good.
_ERROR = 1e-4
_LOGITS = st.lists(st.floats(-20, 20), min_size=1, max_size=8)


def random_keys(n: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return Sampling(1.0).keys(n, generator, torch.device("cpu"))


@given(logits=_LOGITS, data=st.data())
def test_masked_log_softmax_renormalises_over_what_is_allowed(logits: list[float], data: st.DataObject) -> None:
    allowed = data.draw(st.lists(st.booleans(), min_size=len(logits), max_size=len(logits)))
    weights = [math.exp(x) * ok for x, ok in zip(logits, allowed if any(allowed) else [True] * 8, strict=False)]
    expected = [math.log(weight / sum(weights)) if weight else -math.inf for weight in weights]
    found = masked_log_softmax(torch.tensor([logits], dtype=torch.float64), torch.tensor([allowed]))
    assert found[0].tolist() == pytest.approx(expected, abs=1e-9)
    assert (found <= 0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_log_probabilities_are_float32_or_better_and_at_most_zero(dtype: torch.dtype) -> None:
    logits = torch.randn(500, 37, generator=torch.Generator().manual_seed(0)).mul(8).to(dtype)
    forced = torch.arange(37) == 5
    for allowed in (None, forced.expand(500, -1)):
        found = masked_log_softmax(logits, allowed)
        assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert (found <= 0).all()
    assert (found[:, 5] == 0).all(), "a forced token costs nothing"


@given(
    logits=_LOGITS,
    temperature=st.floats(0.2, 3),
    top_k=st.none() | st.integers(1, 9),
    top_p=st.floats(0.05, 1),
    data=st.data(),
)
def test_distribution_equals_the_reference(
    logits: list[float], temperature: float, top_k: int | None, top_p: float, data: st.DataObject
) -> None:
    forbidden = data.draw(st.sets(st.integers(0, len(logits) - 1), max_size=len(logits) - 1))
    allowed = torch.tensor([[token not in forbidden for token in range(len(logits))]])
    log_probs = masked_log_softmax(torch.tensor([logits], dtype=torch.float64), allowed)
    sampling = Sampling(temperature, top_k, top_p)
    expected = sampling_law(log_probs.exp()[0].tolist(), sampling)
    # Rounding decides about a token that stands exactly at the edge of the kept set.
    neighbours = [sampling_law(log_probs.exp()[0].tolist(), Sampling(temperature, top_k, p)) for p in around(top_p)]
    assume(all(neighbour == pytest.approx(expected) for neighbour in neighbours))
    plain = sorted(sampling_law(log_probs.exp()[0].tolist(), Sampling(temperature)))
    assume(all(high - low > 1e-9 * high or high == low == 0 for low, high in pairwise(plain)))
    found = sampling.distribution(log_probs).exp()[0].tolist()
    assert found == pytest.approx(expected, abs=1e-9)


def around(top_p: float) -> list[float]:
    return [max(1e-9, top_p - 1e-9), min(1.0, top_p + 1e-9)]


def test_filters_keep_what_they_name() -> None:
    log_probs = torch.tensor([[0.1, 0.4, 0.2, 0.3]], dtype=torch.float64).log()
    cases = {
        (1, 1.0): [0, 1, 0, 0],
        (2, 1.0): [0, 4 / 7, 0, 3 / 7],
        (9, 1.0): [0.1, 0.4, 0.2, 0.3],
        (None, 0.39): [0, 1, 0, 0],
        (None, 0.41): [0, 4 / 7, 0, 3 / 7],
        (None, 1e-9): [0, 1, 0, 0],
        (2, 0.5): [0, 1, 0, 0],  # 4/7 alone reaches one half
    }
    for (top_k, top_p), expected in cases.items():
        found = Sampling(1.0, top_k, top_p).distribution(log_probs).exp()
        assert found[0].tolist() == pytest.approx(expected)


def test_tokens_as_probable_as_the_last_kept_one_stay() -> None:
    found = Sampling(1.0, top_k=2).distribution(torch.tensor([[0.4, 0.2, 0.2, 0.2]]).log()).exp()
    assert found[0].tolist() == pytest.approx([0.4, 0.2, 0.2, 0.2])


def test_temperature_zero_takes_the_most_probable_token() -> None:
    log_probs = torch.tensor([[[0.2, 0.5, 0.3], [0.6, 0.1, 0.3]]]).log()
    zeros = torch.zeros(1, 2, dtype=torch.int64)
    choice = Sampling().choice(zeros[:, 0], zeros[:, 0], 0, 3)
    assert choice.noise is None, "greedy decoding needs no noise"
    assert choice.choose(log_probs, zeros).tolist() == [[1, 0]]


# Keys as requests draw them, and keys and positions that differ in few bits only.
_NOISE_GRIDS = {
    "random keys": (random_keys(400), 10, 50),
    "consecutive keys": (torch.arange(400), 10, 50),
    "one key": (torch.tensor([7]), 2000, 100),
    "high bits": (torch.arange(400) << 50, 10, 50),
}


@pytest.mark.parametrize("grid", _NOISE_GRIDS)
def test_noise_is_uniform_and_uncorrelated(grid: str) -> None:
    keys, n_positions, size = _NOISE_GRIDS[grid]
    noise = gumbel_noise(keys, torch.arange(n_positions).expand(len(keys), -1), size).double()
    uniform = (-(-noise).exp()).exp()  # [B, P, V]
    assert kstest(uniform.flatten().numpy(), "uniform").pvalue > _ERROR
    for dim, length in enumerate(uniform.shape):
        if length > 1:  # neighbours along each dimension: pairs fall into the 8 × 8 cells alike
            pairs = 8 * uniform.narrow(dim, 0, length - 1).floor_divide(1 / 8)
            pairs = pairs + uniform.narrow(dim, 1, length - 1).floor_divide(1 / 8)
            # Every other pair, so that no number stands in two of them.
            chosen = pairs.index_select(dim, torch.arange(0, length - 1, 2)).flatten().long()
            assert chisquare(torch.bincount(chosen, minlength=64).numpy()).pvalue > _ERROR


def test_noise_is_finite_and_its_tails_are_reached() -> None:
    noise = gumbel_noise(random_keys(100), torch.arange(20).expand(100, -1), 1000)
    assert noise.dtype == torch.float32
    assert noise.isfinite().all()
    # The largest of n draws lies around log n, the smallest around -log log n.
    assert math.log(noise.numel()) - 3 < noise.max() < math.log(2**24) + 1e-3
    assert -math.log(math.log(2**24)) - 1e-3 < noise.min() < -math.log(math.log(noise.numel())) + 1


def test_noise_is_a_function_of_key_position_and_token_alone() -> None:
    keys, positions = random_keys(6), torch.tensor([[0, 3, 9]]).expand(6, -1)
    noise = gumbel_noise(keys, positions, 20)
    assert torch.equal(noise, gumbel_noise(keys, positions, 20))
    order = torch.tensor([5, 2, 0])
    assert torch.equal(noise[order], gumbel_noise(keys[order], positions[order], 20))
    assert torch.equal(noise[:, [2]], gumbel_noise(keys, positions[:, [2]], 20))
    assert torch.equal(noise[..., :7], gumbel_noise(keys, positions, 7))


def test_noise_equals_the_reference_on_plain_integers() -> None:
    noise = gumbel_noise(torch.tensor([0, 12345, -1]), torch.tensor([[0], [1], [77]]), 2)[:, 0]
    expected = [[reference_gumbel(*where, token) for token in (0, 1)] for where in ((0, 0), (12345, 1), (-1, 77))]
    torch.testing.assert_close(noise.double(), torch.tensor(expected, dtype=torch.float64), rtol=1e-5, atol=1e-5)


def reference_gumbel(key: int, position: int, token: int) -> float:
    """Splitmix64's finaliser on Python's own integers."""

    def mix(x: int) -> int:
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
        return x ^ (x >> 31)

    golden = 0x9E3779B97F4A7C15
    base = mix((key + mix(position * golden % 2**64)) % 2**64)
    bits = mix((base + (token + 1) * golden) % 2**64) >> 41
    return -math.log(-math.log((bits + 0.5) / 2**23))


@pytest.mark.parametrize("sampling", [Sampling(1.0), Sampling(0.6, top_k=4), Sampling(1.7, top_p=0.8)])
def test_tokens_are_drawn_from_the_distribution(sampling: Sampling) -> None:
    n = 20_000
    log_probs = torch.randn(1, 1, 6, generator=torch.Generator().manual_seed(3)).log_softmax(-1)
    zeros = torch.zeros(n, 1, dtype=torch.int64)
    choice = sampling.choice(random_keys(n), zeros[:, 0] + 5, 0, 6)
    drawn = choice.choose(log_probs.expand(n, -1, -1), zeros)
    law = torch.tensor(sampling_law(log_probs.exp().flatten().tolist(), sampling))
    seen = torch.bincount(drawn.flatten(), minlength=6)
    assert (seen[law == 0] == 0).all()
    assert chisquare(seen[law > 0].numpy(), n * law[law > 0].double().numpy(), sum_check=False).pvalue > _ERROR


def test_nodes_use_the_noise_of_the_position_they_decide() -> None:
    """A node at depth d of a list of t tokens draws what autoregression draws at position t + d."""
    sampling, keys = Sampling(0.9), random_keys(5)
    log_probs = torch.randn(5, 6, 11, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    depths = torch.tensor([[0, 1, 1, 2, 3, 2]]).expand(5, -1)
    first = torch.tensor([0, 4, 2, 9, 1])
    chosen = sampling.choice(keys, first, 4, 11).choose(log_probs, depths)
    for row, node in product(range(5), range(6)):
        alone = sampling.choice(keys[row : row + 1], first[row : row + 1] + depths[row, node], 0, 11)
        token = alone.choose(log_probs[row : row + 1, node : node + 1], torch.zeros(1, 1, dtype=torch.int64))
        assert int(token) == int(chosen[row, node])


@given(temperature=st.sampled_from([0.0, 0.5, 1.0, 1.7]), depth=st.integers(0, 3), seed=st.integers(0, 999))
def test_a_draft_that_is_right_about_the_target_expects_what_the_target_chooses(
    temperature: float, depth: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(4, 5, 9, generator=generator, dtype=torch.float64)
    allowed = torch.rand(4, 5, 9, generator=generator) < 0.6
    allowed[..., 0] = True
    choice = Sampling(temperature).choice(random_keys(4, seed), torch.tensor([0, 3, 1, 7]), 3, 9)
    expected = choice.log_chances(logits, allowed, depth)
    chosen = choice.choose(masked_log_softmax(logits, allowed), torch.full((4, 5), depth))
    assert torch.equal(expected.argmax(-1), chosen)
    assert torch.equal(expected > -torch.inf, allowed)
    torch.testing.assert_close(expected.exp().sum(-1), torch.ones(4, 5, dtype=torch.float64))
    if temperature == 0:
        assert torch.equal(expected, masked_log_softmax(logits, allowed))


def test_noise_moves_the_expectation_and_filters_do_not() -> None:
    logits = torch.tensor([[[2.0, 1.0, 0.0, -1.0]]], dtype=torch.float64).expand(1, 2, -1)
    noise = torch.tensor([[[0.0, 0.0, 0.0, 0.0], [0.0, 3.0, 0.0, 0.0]]])
    plain, filtered = (Choice(Sampling(2.0, top_k, top_p), noise) for top_k, top_p in ((None, 1.0), (1, 0.1)))
    for choice in (plain, filtered):
        found = choice.log_chances(logits, None, 1)
        assert found.argmax(-1).tolist() == [[1, 1]]
        assert found.isfinite().all(), "what the draft would cut off the target may keep"
        assert choice.log_chances(logits, None, 0).argmax(-1).tolist() == [[0, 0]]


def test_a_forced_token_is_certain_whatever_the_noise() -> None:
    forced = torch.zeros(1, 1, 4, dtype=torch.bool)
    forced[..., 2] = True
    choice = Sampling(1.0).choice(random_keys(1), torch.tensor([5]), 0, 4)
    assert choice.log_chances(torch.randn(1, 1, 4), forced, 0).tolist() == [[[-math.inf, -math.inf, 0.0, -math.inf]]]


def test_keys_come_from_the_generator_alone() -> None:
    assert torch.equal(random_keys(5, seed=4), random_keys(5, seed=4))
    assert len(set(random_keys(1000).tolist())) == 1000
    assert torch.equal(random_keys(9)[:4], random_keys(4)), "a request's key does not depend on later ones"


def test_keys_do_not_depend_on_how_many_are_drawn_at_once() -> None:
    generator, sampling, place = torch.Generator().manual_seed(3), Sampling(1.0), torch.device("cpu")
    parts = [sampling.keys(n, generator, place) for n in (32, 1, 7)]
    assert torch.equal(torch.cat(parts), random_keys(40, seed=3))
