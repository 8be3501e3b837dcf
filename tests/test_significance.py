"""Intervals and p values against enumeration, closed forms and simulation."""

import itertools
import sys

import numpy as np
import pytest
from scipy import stats

from hindi_babylm.comparison import significance
from hindi_babylm.comparison.significance import Scores, compare_scores, estimate, holm
from hindi_babylm.metrics import signatures

DRAW = np.random.default_rng(5)


@pytest.fixture(autouse=True)
def _fresh_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what a test draws hang on no other test."""
    monkeypatch.setattr(sys.modules[__name__], "DRAW", np.random.default_rng(5))


def scores(values: np.ndarray, bottoms: np.ndarray | None = None, strata: np.ndarray | None = None) -> Scores:
    """Return scores of `(runs, items)` or `(runs, items, parts)` values, over ones unless told otherwise."""
    tops = (values if values.ndim == 3 else values[..., None]).astype(float)
    below = np.ones_like(tops) if bottoms is None else np.broadcast_to(bottoms, tops.shape).astype(float)
    return Scores(tops[:, :, None], below[:, :, None], np.zeros(tops.shape[1]) if strata is None else strata)


def macro(points: np.ndarray, strata: np.ndarray) -> Scores:
    """Return scores of `(runs, items)` points whose figure is the mean over strata of their means."""
    parts = np.eye(strata.max() + 1)[strata]
    return scores(points[..., None] * parts, parts, strata)


def plain_figure(tops: list[list[list[float]]], bottoms: list[list[list[float]]]) -> float:
    """Return the mean over averages of the mean over parts of the ratio of sums, where there is one, in plain loops."""
    averages = []
    for number in range(len(tops[0])):
        ratios = []
        for part in range(len(tops[0][0])):
            if below := sum(row[number][part] for row in bottoms):
                ratios.append(sum(row[number][part] for row in tops) / below)
        averages.append(sum(ratios) / len(ratios))
    return sum(averages) / len(averages)


def enumerated_p(base: Scores, other: Scores) -> float:
    """Return the share of all exchanges within items whose difference is as far from 0 as the real one."""
    rows = [(base.tops[0], base.bottoms[0]), (other.tops[0], other.bottoms[0])]
    found = []
    for swaps in itertools.product((0, 1), repeat=base.tops.shape[1]):
        figures = []
        for side in (0, 1):
            chosen = [side ^ swap for swap in swaps]
            tops = [rows[run][0][item].tolist() for item, run in enumerate(chosen)]
            bottoms = [rows[run][1][item].tolist() for item, run in enumerate(chosen)]
            figures.append(plain_figure(tops, bottoms))
        found.append(abs(figures[1] - figures[0]))
    return sum(value >= found[0] - 1e-12 for value in found) / len(found)


def crafted(kind: str) -> tuple[Scores, Scores]:
    """Return two runs over nine items: bits, a macro accuracy with ties, and F1 whose denominators differ."""
    if kind == "bits":
        sizes = DRAW.integers(50, 500, size=(9, 1))
        return (
            scores(DRAW.gamma(9, 20, size=(1, 9, 1)), sizes),
            scores(DRAW.gamma(10, 20, size=(1, 9, 1)), sizes),
        )
    if kind == "macro":
        strata = np.array([0, 0, 1, 1, 1, 1, 2, 2, 2])
        return (
            macro(DRAW.choice([0, 0.5, 1], size=(1, 9)), strata),
            macro(DRAW.choice([0.5, 1], size=(1, 9)), strata),
        )
    truth = np.arange(9) % 3
    sides = []
    for _ in range(2):
        # Two classifiers, and classes that no text has: one is called now and then, one never.
        called = np.where(DRAW.random((9, 2)) < 0.6, truth[:, None], DRAW.integers(4, size=(9, 2)))
        true, named = np.eye(5)[truth][:, None], np.eye(5)[called]
        sides.append(Scores((2 * true * named)[None], (true + named)[None], np.zeros(9)))
    return sides[0], sides[1]


@pytest.mark.parametrize("kind", ["bits", "macro", "f1"])
def test_p_is_the_share_of_all_exchanges(kind: str) -> None:
    """On few items p is exactly the share of all exchanges of the two runs, in a plain loop."""
    for _ in range(4):
        base, other = crafted(kind)
        found = compare_scores(base, other)
        assert found.p == pytest.approx(enumerated_p(base, other), abs=1e-12)
        expected = plain_figure(other.tops[0].tolist(), other.bottoms[0].tolist())
        expected -= plain_figure(base.tops[0].tolist(), base.bottoms[0].tolist())
        assert found.value == pytest.approx(expected, abs=1e-12)


def test_on_many_items_exchanges_are_drawn() -> None:
    """Where there are more exchanges than are drawn, p is near the exact one and never 0."""
    nats = DRAW.normal(size=(1, 15))
    base, other = scores(nats), scores(nats + DRAW.normal(0.3, 1, size=(1, 15)))
    signs = np.array(list(itertools.product((1, -1), repeat=15)))
    changes = (other.tops - base.tops)[0, :, 0, 0]
    exact = float((np.abs(signs @ changes) >= abs(changes.sum()) - 1e-12).mean())
    assert compare_scores(base, other).p == pytest.approx(exact, abs=0.02)
    far = scores(np.zeros((1, 40))), scores(np.ones((1, 40)))
    assert compare_scores(*far).p == pytest.approx(2 / (significance.PERMUTATIONS + 1))


def test_equal_runs_differ_by_nothing() -> None:
    """Of two equal runs, and of conditions of equal runs, the difference is 0, its interval empty, and p is 1."""
    for _ in range(100):  # the mean of three equal floats is now and then another float
        one = DRAW.normal(size=(1, 5))
        many = np.repeat(one, 3, axis=0)
        assert compare_scores(scores(many), scores(many))[:4] == (0, 0, 0, 1)
    assert compare_scores(scores(one), scores(one))[:4] == (0, 0, 0, 1)


def test_the_bootstrap_agrees_with_the_normal_interval() -> None:
    """For many items the interval of a mean of differences is that of the normal distribution, within 10 %."""
    base = DRAW.normal(size=(1, 900))
    changes = DRAW.normal(0.2, 2, size=(1, 900))
    found = compare_scores(scores(base), scores(base + changes))
    reach = 1.96 * changes.std(ddof=1) / 30
    assert found.value == pytest.approx(changes.mean())
    assert found.low == pytest.approx(changes.mean() - reach, abs=0.1 * reach)
    assert found.high == pytest.approx(changes.mean() + reach, abs=0.1 * reach)


def test_items_are_paired() -> None:
    """What makes an item hard for both runs widens no interval."""
    hard = 100 * DRAW.normal(size=(1, 200))
    found = compare_scores(scores(hard), scores(hard + DRAW.normal(0.5, 1, size=(1, 200))))
    assert found.high - found.low < 0.5


def test_a_macro_average_is_resampled_within_its_strata() -> None:
    """A rare phenomenon never vanishes from a draw, and the width is that of the stratified mean."""
    strata = np.repeat([0, 1], [2, 200])
    constant = (
        macro(np.repeat([[1.0, 0.5]], [2, 200], axis=1), strata),
        macro(np.repeat([[0.0, 0.5]], [2, 200], axis=1), strata),
    )
    assert compare_scores(*constant)[:3] == (-0.5, -0.5, -0.5)
    strata = np.repeat([0, 1, 2], [40, 400, 100])
    base, other = DRAW.normal(size=(1, 540)), DRAW.normal(size=(1, 540))
    changes = [(other - base)[0, strata == stratum] for stratum in range(3)]
    reach = 1.96 * np.sqrt(sum(own.var(ddof=1) / len(own) for own in changes)) / 3
    found = compare_scores(macro(base, strata), macro(other, strata))
    assert found.value == pytest.approx(np.mean([own.mean() for own in changes]))
    assert (found.high - found.low) / 2 == pytest.approx(reach, rel=0.1)


def shared_sentences() -> tuple[np.ndarray, list[Scores]]:
    """Return how many pairs of two phenomena 40 sentences have, and two runs' scores with the sentences as items."""
    counts = np.array([[1, 0]] * 12 + [[0, 1]] * 10 + [[1, 1]] * 18).astype(float)
    right = [np.minimum(counts, DRAW.random((40, 1)) < share) for share in (0.5, 0.7)]
    return counts, [Scores(100 * own[None, :, None], counts[None, :, None], signatures(counts)) for own in right]


def test_the_bootstrap_draws_whole_sentences_in_a_plain_loop() -> None:
    """The interval of a difference of macro averages is that of sentences, drawn for both runs among their like."""
    counts, (base, other) = shared_sentences()
    changes = ((other.tops - base.tops)[0, :, 0]).tolist()
    samples = []
    for _ in range(4000):
        sums = [0.0, 0.0]
        for begin, size in ((0, 12), (12, 10), (22, 18)):
            for place in DRAW.integers(begin, begin + size, size=size - 1):
                for part in (0, 1):
                    sums[part] += changes[place][part] * size / (size - 1)
        samples.append((sums[0] / 30 + sums[1] / 28) / 2)
    assert counts.sum(axis=0).tolist() == [30, 28]
    low, high = np.quantile(samples, [0.025, 0.975])
    found = compare_scores(base, other)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.08 * (high - low))


def test_a_t_over_sentences_is_wider_than_one_over_their_pairs() -> None:
    """Pairs that are right and wrong together tell as much as one: over sentences the interval is wider by sqrt(2)."""
    right = np.repeat(DRAW.random((1, 50, 1)) < 0.7, 2, axis=2) * 100.0
    over_sentences = estimate(Scores(np.repeat(right, 2, axis=0)[:, :, None], np.ones((2, 50, 1, 2)), np.zeros(50)))
    pairs = np.concatenate([right[..., :1] * [1, 0], right[..., 1:] * [0, 1]], axis=1)
    parts = np.repeat(np.eye(2), 50, axis=0)
    over_pairs = estimate(scores(np.repeat(pairs, 2, axis=0), parts))
    assert over_sentences.value == over_pairs.value == pytest.approx(right.mean())
    expected = stats.ttest_1samp(right[0, :, 0], 0).confidence_interval()
    assert over_sentences[1:3] == pytest.approx(tuple(expected))
    ratio = (over_sentences.high - over_sentences.low) / (over_pairs.high - over_pairs.low)
    assert ratio == pytest.approx(2**0.5, rel=0.03)


def test_a_difference_of_rounding_alone_is_none() -> None:
    """Where two runs have one figure but for the order of adding, every exchange is as far from 0, and p is 1."""
    base = macro(np.array([[1, 1, 0, 0, 1, 1, 0]]), np.array([0, 0, 0, 1, 1, 1, 1]))
    other = macro(np.array([[0, 1, 1, 1, 0, 1, 0]]), np.array([0, 0, 0, 1, 1, 1, 1]))
    noisy = Scores(other.tops * (1 + 1e-15), other.bottoms, other.strata)
    assert compare_scores(base, noisy).p == 1


def test_where_items_agree_runs_are_compared_as_by_t() -> None:
    """When every item differs alike, value, p and interval are those of Student's test on the figures of the runs."""
    items, first, second = DRAW.normal(size=(1, 25)), DRAW.normal(size=(3, 1)), DRAW.normal(1, 1, size=(4, 1))
    found = compare_scores(scores(items + first), scores(items + second))
    expected = stats.ttest_ind(second[:, 0], first[:, 0])
    low, high = expected.confidence_interval()
    assert found[:4] == pytest.approx((second.mean() - first.mean(), low, high, expected.pvalue))
    own = estimate(scores(0 * items + second))
    low, high = stats.ttest_1samp(second[:, 0], 0).confidence_interval()
    assert own[:3] == pytest.approx((second.mean(), low, high))


def test_where_runs_agree_items_are_compared_as_by_t() -> None:
    """When all runs of a condition are equal, p and interval are those of the paired test on the items."""
    first, second = DRAW.normal(size=(1, 25)), DRAW.normal(0.3, 1, size=(1, 25))
    found = compare_scores(scores(np.repeat(first, 2, axis=0)), scores(np.repeat(second, 3, axis=0)))
    expected = stats.ttest_rel(second[0], first[0])
    low, high = expected.confidence_interval()
    assert found[:4] == pytest.approx(((second - first).mean(), low, high, expected.pvalue))


def test_the_variance_of_runs_and_items_in_plain_loops() -> None:
    """The variance is that over runs plus that over items less that of their interaction, of ratios to first order."""
    sizes = DRAW.integers(5, 50, size=12).astype(float)
    sides = [DRAW.gamma(9, 1, size=(runs, 12)) * sizes + DRAW.normal(0, 9, size=(runs, 1)) for runs in (2, 3)]
    shares, figures = [], []
    for side in sides:
        figures.append([sum(run) / sum(sizes) for run in side])
        shares.append(
            [
                [(top - figure * size) / sum(sizes) for top, size in zip(run, sizes, strict=True)]
                for run, figure in zip(side, figures[-1], strict=True)
            ]
        )
    spare, inverse, correction = 3, 1 / 2 + 1 / 3, 12 / 11
    of_runs = inverse / spare * sum(sum((f - np.mean(own)) ** 2 for f in own) for own in figures)
    means = [[np.mean([run[item] for run in side]) for item in range(12)] for side in shares]
    of_items = correction * sum((two - one) ** 2 for one, two in zip(*means, strict=True))
    both = 0.0
    for side, mean in zip(shares, means, strict=True):
        both += correction * inverse / spare * sum((run[item] - mean[item]) ** 2 for run in side for item in range(12))
    variance = max(of_runs, of_items, of_runs + of_items - both)
    freedom = variance**2 / (of_runs**2 / 3 + of_items**2 / 11)
    base, other = (scores(side[..., None], sizes[:, None]) for side in sides)
    found = compare_scores(base, other)
    value = np.mean(figures[1]) - np.mean(figures[0])
    assert found.value == pytest.approx(value)
    assert found.p == pytest.approx(2 * stats.t.sf(abs(value) / variance**0.5, freedom))
    assert found.high - value == pytest.approx(stats.t.ppf(0.975, freedom) * variance**0.5)


def test_runs_and_items_that_all_agree_have_the_p_of_exchanges() -> None:
    """Where no item and no run differs from another, p is the least that so few items can give, and not 0."""
    found = compare_scores(scores(np.ones((2, 4))), scores(np.zeros((2, 4))))
    assert found[:4] == (-1, -1, -1, 2 / 2**4)


def test_holm_by_hand() -> None:
    """The smallest of four is multiplied by 4, the next by 3 and so on; none is below the one before, none past 1."""
    assert holm([0.04, 0.01, 0.6, 0.03]) == pytest.approx([0.09, 0.04, 0.6, 0.09])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


def rejected(p_values: list[float], level: float) -> float:
    """Return the share of p values at or below a level."""
    return float(np.mean(np.asarray(p_values) <= level))


def test_p_of_one_run_each_is_uniform_under_the_null(monkeypatch: pytest.MonkeyPatch) -> None:
    """When two runs differ by chance alone, p is at or below a level as often as the level says."""
    monkeypatch.setattr(significance, "PERMUTATIONS", 199)
    monkeypatch.setattr(significance, "BOOTSTRAP_SAMPLES", 2)
    draw = np.random.default_rng(1)
    items = draw.normal(size=(1, 20))
    found = [
        compare_scores(*(scores(items + draw.normal(size=(1, 20))) for _ in range(2)), seed=seed).p
        for seed in range(600)
    ]
    for level in (0.05, 0.1, 0.25, 0.5, 0.75):
        assert rejected(found, level) == pytest.approx(level, abs=4 * (level * (1 - level) / 600) ** 0.5)


@pytest.mark.parametrize("runs", [(2, 2), (3, 3), (1, 4)])
def test_p_of_several_runs_is_uniform_under_the_null(runs: tuple[int, int]) -> None:
    """When seeds alone move the runs of two conditions, p keeps its level; over items alone it would not."""
    draw = np.random.default_rng(2)
    found, naive = [], []
    for _ in range(1500):
        items = draw.normal(size=60)
        base, other = (
            scores(items + 0.3 * draw.normal(size=(count, 1)) + 0.5 * draw.normal(size=(count, 60))) for count in runs
        )
        found.append(compare_scores(base, other).p)
        changes = (other.tops.mean(axis=0) - base.tops.mean(axis=0))[:, 0, 0]
        naive.append(float(stats.ttest_1samp(changes, 0).pvalue))
    for level in (0.05, 0.1, 0.25, 0.5, 0.75):
        assert rejected(found, level) == pytest.approx(level, abs=0.04)
    assert rejected(found, 0.01) < 0.03  # with two runs each, Satterthwaite's degrees are a little too many
    assert rejected(naive, 0.05) > 0.3
