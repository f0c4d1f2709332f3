"""Paired differences: against a slow bootstrap and Holm's rule by hand; planted, absent and misleading ones."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from imgrec_lib.results.significance import ALPHA, holm, paired_differences


def table(*columns: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({f"m{number}": column for number, column in enumerate(columns)})


def test_holm_by_hand() -> None:
    # Sorted: .01 x 4 = .04, .02 x 3 = .06, .03 x 2 = .06, .5 x 1 = .5, in the order given.
    np.testing.assert_allclose(holm([0.5, 0.01, 0.03, 0.02]), [0.5, 0.04, 0.06, 0.06])
    np.testing.assert_allclose(holm([0.4, 0.9, 0.6]), [1, 1, 1])
    assert len(holm([])) == 0


@given(arrays(float, st.integers(1, 12), elements=st.floats(0, 1)))
@settings(max_examples=50, deadline=None)
def test_holm_rejects_what_the_step_down_procedure_rejects(p: np.ndarray) -> None:
    rejected = np.zeros(len(p), bool)
    for step, place in enumerate(np.argsort(p, kind="stable")):
        if p[place] * (len(p) - step) > ALPHA:
            break
        rejected[place] = True
    np.testing.assert_array_equal(holm(p) <= ALPHA, rejected)


def test_against_a_slow_bootstrap() -> None:
    rng = np.random.default_rng(5)
    values = table(rng.beta(4, 1, 80), rng.beta(4, 1.2, 80), rng.beta(4, 1.6, 80))
    found = paired_differences(values, resamples=4000, seed=1)
    np.testing.assert_allclose(found.mean, values.mean().to_numpy()[:, None] - values.mean().to_numpy())
    raw = {}
    for a, b in ((0, 1), (0, 2), (1, 2)):
        difference = (values.iloc[:, a] - values.iloc[:, b]).to_numpy()
        means = np.array([difference[rng.integers(0, 80, 80)].mean() for _ in range(20_000)])
        assert found.low[a, b] == pytest.approx(np.quantile(means, 0.025), abs=0.004)
        assert found.high[a, b] == pytest.approx(np.quantile(means, 0.975), abs=0.004)
        raw[a, b] = min(1, 2 * min((means <= 0).mean(), (means >= 0).mean()))
    for pair, expected in zip(raw, holm(list(raw.values())), strict=True):
        assert found.p[pair] == pytest.approx(expected, abs=0.03)
    assert found.users == 80 and found.labels == ("m0", "m1", "m2")


def test_other_direction_is_the_mirror() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.uniform(size=(2, 60))
    one, other = paired_differences(table(a, b)), paired_differences(table(b, a))
    np.testing.assert_allclose(one.mean, -one.mean.T)
    np.testing.assert_allclose(one.low, -one.high.T)
    np.testing.assert_array_equal(one.p, one.p.T)
    assert one.mean[0, 1] == pytest.approx(-other.mean[0, 1])
    assert one.low[0, 1] == pytest.approx(-other.high[0, 1]) and one.p[0, 1] == pytest.approx(other.p[0, 1])


def test_pairing_finds_a_small_constant_lead_that_means_alone_cannot_show() -> None:
    rng = np.random.default_rng(2)
    user = rng.uniform(0.3, 0.95, 300)
    values = table(user + 0.01 + rng.normal(0, 0.02, 300), user)
    assert stats.ttest_ind(*values.to_numpy().T).pvalue > 0.3
    found = paired_differences(values)
    assert found.holds[0, 1] and found.mean[0, 1] > 0 and found.low[0, 1] > 0


def test_a_planted_difference_holds_in_its_direction_only() -> None:
    rng = np.random.default_rng(3)
    base = rng.beta(5, 1, 500)
    worse, same = base - 0.05 * rng.uniform(size=500), base + rng.normal(0, 0.001, 500)
    found = paired_differences(table(worse, base, same))
    assert found.holds[0, 1] and found.holds[0, 2] and not found.holds[1, 2]
    assert found.mean[0, 1] < 0 < found.mean[1, 0]
    assert not found.holds.diagonal().any()


@pytest.mark.slow
def test_under_the_null_few_tables_get_any_mark() -> None:
    """Four models that are copies of one another but for exchangeable noise: a mark is an error."""
    marked, tables_drawn = 0, 200
    for number in range(tables_drawn):
        rng = np.random.default_rng(number)
        user = rng.beta(6, 1, 250)  # skewed and bounded, like AUC
        noise = np.where(rng.uniform(size=(4, 250)) < 0.4, 0, rng.normal(0, 0.05, (4, 250)))  # and full of ties
        found = paired_differences(table(*np.clip(user + noise, 0, 1)), resamples=1000, seed=number)
        marked += bool(found.holds.any())
    # The upper 99 % point of a binomial with 200 draws and probability alpha.
    assert marked <= stats.binom.ppf(0.99, tables_drawn, ALPHA)


def test_the_mean_is_tested_where_the_signed_rank_test_would_err() -> None:
    """Losing little often and winning much seldom: equal on average, yet Wilcoxon calls the first model worse."""
    rng = np.random.default_rng(1)
    wins = np.arange(400) < 40
    difference = rng.permutation(np.where(wins, 0.45, -0.05)) + rng.normal(0, 0.001, 400)
    difference -= difference.mean()
    values = table(0.5 + difference, np.full(400, 0.5))
    assert stats.wilcoxon(difference).pvalue < 1e-6
    assert not paired_differences(values).holds.any()


def test_equal_columns_differ_by_nothing_at_all() -> None:
    rng = np.random.default_rng(4)
    values = table(*rng.uniform(size=(7, 333)))
    values["copy"] = values["m6"]
    found = paired_differences(values)
    place = found.place("copy")
    assert found.mean[6, place] == found.low[6, place] == found.high[6, place] == 0 and found.p[6, place] == 1


def test_enough_resamples_for_every_pair_to_be_marked() -> None:
    rng = np.random.default_rng(0)
    values = table(*(rng.normal(number, 0.1, 40) for number in range(25)))
    found = paired_differences(values)
    assert found.resamples == 100 * 300
    assert found.holds[~np.eye(25, dtype=bool)].all()


def test_users_without_a_value_are_left_out_and_draws_are_seeded() -> None:
    rng = np.random.default_rng(0)
    values = table(*rng.uniform(size=(2, 50)))
    values.loc[3, "m1"] = np.nan
    found = paired_differences(values)
    again = paired_differences(values.dropna())
    assert found.users == 49 and found.p[0, 1] == again.p[0, 1] and found.mean[0, 1] == again.mean[0, 1]
    with pytest.raises(ValueError, match="no user"):
        paired_differences(values * np.nan)
