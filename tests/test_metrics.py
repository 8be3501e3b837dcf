import itertools
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import binomtest

from hindi_babylm.metrics import (
    agreement_limits,
    bits_per_unit,
    bootstrap_interval,
    cases_of,
    perplexity,
    resampled,
    signatures,
    tabulated,
    token_perplexity_metric,
)


@pytest.mark.parametrize("size", [2, 10, 32_000])
def test_perplexity_of_a_uniform_model_is_its_vocabulary(size: int) -> None:
    """A model that spreads its mass over V tokens has perplexity V, whatever the length of the text."""
    for tokens in (1, 7, 100_000):
        assert perplexity(tokens * math.log(size), tokens) == pytest.approx(size, rel=1e-9)


def test_perplexity_closed_forms() -> None:
    """Perplexity is exp of nats per unit: 1 for a certain model, infinite past the range of a float."""
    assert perplexity(0.0, 5) == 1.0
    assert perplexity(10.0, 5) == pytest.approx(math.e**2)
    assert perplexity(1e6, 1) == math.inf


def test_bits_per_unit_closed_forms() -> None:
    """n fair coin flips over m units are n / m bits per unit."""
    assert bits_per_unit(12 * math.log(2), 3) == pytest.approx(4.0)
    assert bits_per_unit(0.0, 3) == 0.0
    # A uniform guess over 256 bytes is 8 bits per byte.
    assert bits_per_unit(1000 * math.log(256), 1000) == pytest.approx(8.0)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.floats(0, 500), st.integers(1, 1000))
def test_bits_and_perplexity_tell_the_same(nll: float, units: int) -> None:
    """Perplexity is 2 to the power of the bits per unit."""
    assert perplexity(nll, units) == pytest.approx(2 ** bits_per_unit(nll, units), rel=1e-9)


def test_bootstrap_contains_the_point_estimate() -> None:
    """The interval of a ratio holds the ratio itself, and is narrower for more items."""
    generator = np.random.default_rng(0)
    widths = []
    for items in (30, 3000):
        counts = generator.integers(5, 200, size=items)
        nll = counts * generator.normal(3.0, 0.5, size=items)
        low, high = bootstrap_interval(nll, counts)
        assert low < nll.sum() / counts.sum() < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 3  # the error falls with the root of the items: by 10


def test_bootstrap_equals_resampling_by_hand() -> None:
    """The interval equals the quantiles of ratios over items drawn with replacement, one by one."""
    generator = np.random.default_rng(3)
    counts = generator.integers(1, 50, size=25)
    nll = counts * generator.gamma(4.0, 1.0, size=25)
    draws = []
    for _ in range(20_000):
        chosen = generator.integers(0, 25, size=25)
        draws.append(sum(nll[i] for i in chosen) / sum(counts[i] for i in chosen))
    expected = np.quantile(draws, [0.025, 0.975])
    width = expected[1] - expected[0]
    low, high = bootstrap_interval(nll, counts)
    # 1000 samples put a 2.5 % quantile within a tenth of the width.
    assert abs(low - expected[0]) < 0.1 * width
    assert abs(high - expected[1]) < 0.1 * width


def test_bootstrap_of_a_mean_equals_the_normal_approximation() -> None:
    """Over many items of one size the interval is the mean plus and minus 1.96 standard errors."""
    values = np.random.default_rng(1).normal(5.0, 2.0, size=2000)
    low, high = bootstrap_interval(values, np.ones(2000))
    error = 1.96 * values.std() / math.sqrt(2000)
    assert low == pytest.approx(values.mean() - error, abs=0.1 * error)
    assert high == pytest.approx(values.mean() + error, abs=0.1 * error)


def test_bootstrap_degenerate_cases() -> None:
    """One item, or items of one ratio, leave an interval of no width; empty items do no harm."""
    assert bootstrap_interval([6.0], [3]) == (2.0, 2.0)
    assert bootstrap_interval([2.0, 4.0, 6.0], [1, 2, 3]) == pytest.approx((2.0, 2.0))
    low, high = bootstrap_interval([0.0, 6.0], [0, 3])
    assert (low, high) == (2.0, 2.0)


def test_bootstrap_hangs_on_its_seed_alone() -> None:
    """The same seed gives the same interval, another one another."""
    nll, counts = [1.0, 5.0, 9.0, 2.0], [2, 2, 3, 4]
    assert bootstrap_interval(nll, counts, seed=1) == bootstrap_interval(nll, counts, seed=1)
    many = np.random.default_rng(0).normal(size=200)
    assert bootstrap_interval(many, np.ones(200), seed=1) != bootstrap_interval(many, np.ones(200), seed=2)


def test_evaluate_metric_equals_the_plain_computation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The metric for `evaluate` gives the loss over all tokens, however the rows come in, without any network."""
    import socket

    import evaluate

    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("a test wanted the network")

    for name in ("create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", tmp_path)
    nll, tokens = [30.0, 2.0, 0.5], [10, 4, 1]
    expected = {"loss": 32.5 / 15, "perplexity": math.exp(32.5 / 15)}
    metric = token_perplexity_metric()
    assert metric.compute(predictions=nll, references=tokens) == pytest.approx(expected)
    metric.add_batch(predictions=nll[:2], references=tokens[:2])
    metric.add(prediction=nll[2], reference=tokens[2])
    assert metric.compute() == pytest.approx(expected)


def test_a_table_has_the_sums_of_a_plain_loop() -> None:
    """Each case and part has the sum of its rows, cases in order, and equal rows of a table have one signature."""
    draw = np.random.default_rng(0)
    cases, parts, values = draw.choice(["क", "ख", "ग"], 20).tolist(), draw.integers(0, 3, 20), draw.random(20)
    sums: Counter[tuple[str, int]] = Counter()
    for case, part, value in zip(cases, parts.tolist(), values.tolist(), strict=True):
        sums[case, part] += value
    expected = [[sums[case, part] for part in range(3)] for case in "कखग"]
    assert tabulated(cases, parts, values) == pytest.approx(np.asarray(expected))
    counts = draw.integers(0, 2, size=(30, 2))
    found = signatures(counts)
    for one, two in itertools.combinations(range(30), 2):
        assert (found[one] == found[two]) == (counts[one] == counts[two]).all()


def test_each_stratum_is_drawn_from_by_itself() -> None:
    """Of n items n - 1 are drawn, each worth n / (n - 1), so that all counts are such multiples and sum to n."""
    strata = np.array([2, 0, 2, 2, 1, 0, 2, 0])
    seen: dict[int, set[float]] = {0: set(), 1: set(), 2: set()}
    for counts in resampled(strata, draws=300, seed=1):
        for stratum, size in ((0, 3), (1, 1), (2, 4)):
            own = counts[strata == stratum]
            assert own.sum() == pytest.approx(size)
            seen[stratum] |= set(np.round(own, 9).tolist())
    assert seen[0] == {0, 1.5, 3}
    assert seen[1] == {1}
    assert seen[2] == set(np.round([0, 4 / 3, 8 / 3, 4], 9).tolist())


def test_resampled_sums_have_the_variance_of_a_stratified_sample() -> None:
    """The variance of a sum over draws is n times the unbiased variance of each stratum, where n of n give n - 1."""
    draw = np.random.default_rng(0)
    strata = np.repeat([0, 1, 2], [4, 3, 2])
    values = draw.normal(size=9)
    sums = [counts @ values for counts in resampled(strata, draws=20_000, seed=2)]
    parts = [values[strata == stratum] for stratum in range(3)]
    assert np.var(sums) == pytest.approx(sum(len(own) * own.var(ddof=1) for own in parts), rel=0.04)
    assert np.mean(sums) == pytest.approx(values.sum(), abs=0.05)


@pytest.mark.parametrize("size", [1, 2, 53, 560])
def test_limits_of_one_part_are_those_of_clopper_and_pearson(size: int) -> None:
    """With n items all right the lower limit is 0.025 ** (1 / n), with none the upper one mirrors it."""
    ones = np.ones((size, 1))
    for points, right in ((ones, size), (0 * ones, 0)):
        expected = binomtest(right, size).proportion_ci(method="exact")
        assert agreement_limits(points, ones) == pytest.approx((expected.low, expected.high))
    assert agreement_limits(ones, ones) == pytest.approx((0.025 ** (1 / size), 1))


def test_limits_are_for_what_agrees_alone() -> None:
    """An item that differs in its part, and a tie, leave no exact limits; an item of several rows counts once."""
    ones = np.ones((4, 1))
    assert agreement_limits(np.array([[1.0], [1.0], [0.0], [1.0]]), ones) is None
    assert agreement_limits(np.array([[1.0], [1.0], [0.5], [1.0]]), ones) is None
    assert agreement_limits(0.5 * ones, ones) is None
    several = np.array([[1.0], [3.0], [1.0], [2.0]])
    assert agreement_limits(several, several) == agreement_limits(ones, ones)


def test_limits_of_a_mean_are_the_least_that_leave_the_outcome_possible() -> None:
    """The lower limit is the least mean over parts of chances whose product is 2.5 %, found by a general optimizer."""
    held = np.array([[1, 0], [1, 0], [1, 1], [0, 1], [0, 1], [0, 1], [1, 1]])
    shares = (held / held.sum(axis=0)).mean(axis=1)
    found = agreement_limits(held, held)
    assert found is not None
    best = 1.0
    for start in (0.3, 0.6, 0.9):
        done = minimize(
            lambda p: float(shares @ p),
            np.full(7, start),
            bounds=[(1e-9, 1)] * 7,
            constraints=[{"type": "ineq", "fun": lambda p: float(np.log(p).sum() - math.log(0.025))}],
            options={"maxiter": 1000, "ftol": 1e-12},
        )
        best = min(best, done.fun) if done.success else best
    assert found == pytest.approx((best, 1), abs=1e-6)
    assert agreement_limits(0 * held, held) == pytest.approx((0, 1 - best), abs=1e-6)


def test_limits_of_a_mean_in_closed_form() -> None:
    """Parts of n items each, k of them, are as k n items; beside a large part a small one is what may be wrong."""
    even = np.kron(np.eye(3), np.ones((20, 1)))
    assert agreement_limits(even, even) == pytest.approx((0.025 ** (1 / 60), 1))
    uneven = np.zeros((1010, 2))
    uneven[:10, 0] = uneven[10:, 1] = 1
    assert agreement_limits(uneven, uneven) == pytest.approx(((1 + 0.025 ** (1 / 10)) / 2, 1))
    mixed = uneven * [1, 0]  # all right in the one, all wrong in the other
    assert agreement_limits(mixed, uneven) == pytest.approx(
        (0.025 ** (1 / 10) / 2, 0.5 + (1 - 0.025 ** (1 / 1000)) / 2)
    )
    same = np.ones((20, 3))  # of the same sentences the parts say no more than one of them
    assert agreement_limits(same, same) == pytest.approx((0.025 ** (1 / 20), 1))


def test_questions_of_one_context_are_one_case() -> None:
    """Equal contexts are one case; an empty one, or one that all questions have, makes each question its own."""
    assert cases_of(["a", "b", "a", "", "", "b"]) == [0, 1, 0, 6, 7, 1]
    assert cases_of(["a"] * 3) == [0, 1, 2]
    assert cases_of([""] * 2) == [0, 1]
