import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hindi_babylm.metrics import bits_per_unit, bootstrap_interval, perplexity, token_perplexity_metric


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
