"""Say how sure a difference between two conditions is: paired over items, with their runs as replicates."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from hindi_babylm.metrics import BOOTSTRAP_SAMPLES, CONFIDENCE, agreement_limits, resampled

PERMUTATIONS = 9999  # drawn where there are more sign flips than these; else all are taken
SIGNS_PER_BATCH = 2**22


@dataclass(frozen=True)
class Scores:
    """What each run of a condition got on the same items, as parts of a ratio.

    `tops` and `bottoms` are float64 `(runs, items, averages, parts)`. A run's figure is the mean over `averages` of the
    mean over `parts` of sum(tops) / sum(bottoms), a part of nothing left out: bits per byte have one part, a macro
    average has one a phenomenon, macro-F1 one a class, in an average for each classifier. An item is what was drawn
    independently, a work or a sentence with its pairs; `strata (items,)` are resampled each by itself.
    """

    tops: np.ndarray
    bottoms: np.ndarray
    strata: np.ndarray

    def figures(self) -> np.ndarray:
        """Return the figure of each run, float64 `(runs,)`."""
        return _figure(self.tops.sum(axis=1), self.bottoms.sum(axis=1))


class Difference(NamedTuple):
    """A difference, its 95 % interval, the probability of so large a one without any, and how these were found."""

    value: float
    low: float
    high: float
    p: float
    test: str


def compare_scores(base: Scores, other: Scores, *, p: float | None = None, seed: int = 0) -> Difference:
    """Return the difference `other` - `base` of the mean figures of two conditions over the same items.

    Of one run each it is a statement on these two models: the interval is a bootstrap over pairs of items
    (Efron 1979), p a permutation within them. With more runs it is one on their recipes: runs and items are both
    drawn, and a t statistic has the variance of both (see docs/decisions.md). A `p` that is known, as that of bits
    per byte for bits per character, is taken as it is.

    >>> nats = np.array([3.0, 5.0, 4.0, 6.0, 2.0, 7.0]).reshape(1, 6, 1, 1)
    >>> documents = {"bottoms": np.full((1, 6, 1, 1), 4.0), "strata": np.zeros(6)}
    >>> found = compare_scores(Scores(nats, **documents), Scores(nats + 0.5, **documents))
    >>> print(found.value, found.p)  # 2 of the 64 flips of 6 signs are as extreme
    0.125 0.03125
    """
    value = float(other.figures().mean() - base.figures().mean())
    if len(base.tops) == len(other.tops) == 1:
        low, high = _paired_bootstrap(base, other, seed=seed)
        p = _permutation(base, other, seed=seed) if p is None else p
        return Difference(value, low, high, p, "permutation")
    found = _by_t(value, [base, other])
    if p is None and found.low == found.high:  # no item and no run differs from another: a t would say p = 0
        p = _permutation(_mean_run(base), _mean_run(other), seed=seed)
    return found if p is None else found._replace(p=p)


def estimate(scores: Scores) -> Difference:
    """Return the mean figure of several runs of one condition with its 95 % interval over runs and items.

    The p of a value against 0 has no meaning: it is nan.
    """
    return _by_t(float(scores.figures().mean()), [scores])._replace(p=float("nan"))


def limits_where_all_agree(scores: Scores) -> tuple[float, float] | None:
    """Return the exact limits, in percent, of shares of which every item of every run is right, or every one wrong.

    A bootstrap and a t statistic see no spread there, and would claim certainty. More runs that agree are no more
    items: the limits are those of one. None where anything differs within a part.

    >>> scores = Scores(np.zeros((2, 53, 1, 1)), np.ones((2, 53, 1, 1)), np.zeros(53))
    >>> low, high = limits_where_all_agree(scores)
    >>> print(low, round(high, 1))
    0.0 6.7
    """
    found = agreement_limits(scores.tops.sum(axis=(0, 2)) / 100, scores.bottoms.sum(axis=(0, 2)))
    return found and (100 * found[0], 100 * found[1])


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p values adjusted for so many comparisons, in the same order (Holm 1979).

    >>> print([round(p, 3) for p in holm([0.01, 0.04, 0.03])])
    [0.03, 0.06, 0.06]
    """
    adjusted = [0.0] * len(p_values)
    least = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = least
    return adjusted


def _figure(tops: np.ndarray, bottoms: np.ndarray) -> np.ndarray:
    """Return the mean over averages of the mean ratio over parts; nothing over nothing, as a class, counts for none."""
    ratios = np.divide(tops, bottoms, out=np.zeros_like(tops), where=bottoms > 0)
    return np.asarray((ratios.sum(axis=-1) / np.maximum(1, (bottoms > 0).sum(axis=-1))).mean(axis=-1))


def _mean_run(scores: Scores) -> Scores:
    return Scores(scores.tops.mean(axis=0)[None], scores.bottoms.mean(axis=0)[None], scores.strata)


def _paired_bootstrap(base: Scores, other: Scores, *, seed: int) -> tuple[float, float]:
    """Return the percentile interval of the difference of two runs, whose items are drawn together."""
    samples = []
    for counts in resampled(base.strata, draws=BOOTSTRAP_SAMPLES, seed=seed):
        one, two = (
            _figure(*(np.tensordot(counts, part[0], 1) for part in (scores.tops, scores.bottoms)))
            for scores in (base, other)
        )
        samples.append(two - one)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(samples, [tail, 1 - tail])
    return float(low), float(high)


def _permutation(base: Scores, other: Scores, *, seed: int) -> float:
    """Return the two-sided p under exchange of the two runs within each item (a flip of the sign of its difference)."""
    from scipy.stats import permutation_test

    sums, differences = (
        [(one[0] + sign * two[0]) / 2 for one, two in ((base.tops, other.tops), (base.bottoms, other.bottoms))]
        for sign in (1, -1)
    )

    def difference(signs: np.ndarray, axis: int) -> np.ndarray:
        signs = np.moveaxis(signs, axis, -1)
        (tops, top_shift), (bottoms, bottom_shift) = (
            (total.sum(axis=0), np.tensordot(signs, change, 1)) for total, change in zip(sums, differences, strict=True)
        )
        base_figure = _figure(tops + top_shift, bottoms + bottom_shift)
        # Rounded: exchanges that differ by the order of adding alone tie with the real one.
        return np.asarray(np.round(_figure(tops - top_shift, bottoms - bottom_shift) - base_figure, 10))

    items = base.tops.shape[1]
    settings: Any = {"n_resamples": PERMUTATIONS, "batch": max(1, SIGNS_PER_BATCH // items), "rng": seed}
    found = permutation_test((np.ones(items),), difference, permutation_type="samples", vectorized=True, **settings)
    return float(found.pvalue)


def _by_t(value: float, groups: Sequence[Scores]) -> Difference:
    """Return `value` with interval and p by a t statistic that takes runs and items both as drawn."""
    from scipy.stats import t

    variance, freedom = _variance(groups)
    if variance == 0:
        return Difference(value, value, value, float("nan"), "t over runs and items")
    reach = float(t.ppf((1 + CONFIDENCE) / 2, freedom)) * variance**0.5
    p = 2 * float(t.sf(abs(value) / variance**0.5, freedom))
    return Difference(value, value - reach, value + reach, p, "t over runs and items")


def _variance(groups: Sequence[Scores]) -> tuple[float, float]:
    """Return the variance of the (difference of the) mean figures of one or two groups, and its degrees of freedom.

    Clustered by runs and by items (Cameron, Gelbach and Miller 2011): the variance over runs plus that over items less
    that of their interaction, which both contain; the degrees are Satterthwaite's (1946). The variance over runs is
    pooled over the groups, so one of them may have a single run.
    """
    shares = [_shares(scores) for scores in groups]
    items = shares[0].shape[1]
    spare = sum(len(share) - 1 for share in shares)
    inverse = sum(1 / len(share) for share in shares)
    correction = items / max(1, items - 1)
    signed = shares[-1].mean(axis=0) - (shares[0].mean(axis=0) if len(shares) == 2 else 0)
    of_items = correction * float(signed @ signed)
    of_runs = inverse / spare * sum(float((_deviations(scores.figures()) ** 2).sum()) for scores in groups)
    both = correction * inverse / spare * sum(float((_deviations(share) ** 2).sum()) for share in shares)
    variance = max(of_runs, of_items, of_runs + of_items - both)
    parts = of_runs**2 / spare + of_items**2 / max(1, items - 1)
    return variance, variance**2 / parts if parts else 1.0


def _deviations(values: np.ndarray) -> np.ndarray:
    """Return the values less their mean over runs; the mean of equal values is not always one of them in floats."""
    values = values - values[0]
    return np.asarray(values - values.mean(axis=0))


def _shares(scores: Scores) -> np.ndarray:
    """Return what each item adds to or takes from the figure of each run, to first order: `(runs, items)`, sum 0."""
    totals = scores.bottoms.sum(axis=1, keepdims=True)
    inverse = np.divide(1, totals, out=np.zeros_like(totals), where=totals > 0)
    ratios = scores.tops.sum(axis=1, keepdims=True) * inverse
    shares = ((scores.tops - ratios * scores.bottoms) * inverse).sum(axis=-1)
    return np.asarray((shares / np.maximum(1, (totals > 0).sum(axis=-1))).mean(axis=-1))
