import pytest

from experiments.atspeed.table import resampled_shares


def test_equal_seeds_make_no_more_users_of_the_same() -> None:
    one, three = (resampled_shares([[75, 25]] * seeds)[:, 0] for seeds in (1, 3))
    assert float(one.mean()) == pytest.approx(0.75, abs=0.01)
    assert float(three.std()) == pytest.approx(float(one.std()), rel=0.1)


def test_seeds_that_differ_widen_the_interval() -> None:
    shares = resampled_shares([[100], [0, 100], [0, 0, 100]])
    assert shares.shape[1] == 3
    assert float(shares[:, 0].std()) > 0.2
