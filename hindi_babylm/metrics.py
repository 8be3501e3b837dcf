"""Turn sums of negative log-likelihoods into perplexity and bits per unit: sum nats and counts, divide once."""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from evaluate import Metric

BOOTSTRAP_SAMPLES = 1000
CONFIDENCE = 0.95


def perplexity(nll: float, units: float) -> float:
    """Return exp(`nll` / `units`) for a total `nll` in nats over `units` tokens or words; inf past float range.

    >>> round(perplexity(3 * math.log(50), 3), 9)  # three tokens, each as likely as one of 50
    50.0
    """
    try:
        return math.exp(nll / units)
    except OverflowError:
        return math.inf


def bits_per_unit(nll: float, units: float) -> float:
    """Return the bits per unit (byte, character, akshara) of a total `nll` in nats.

    >>> bits_per_unit(8 * math.log(2), 4)
    2.0
    """
    return nll / math.log(2) / units


def bootstrap_interval(
    numerators: "Sequence[float] | np.ndarray", denominators: "Sequence[float] | np.ndarray", *, seed: int = 0
) -> tuple[float, float]:
    """Return the 95 % percentile interval of sum(numerators) / sum(denominators), resampling the items.

    An item is what was drawn independently: a work, a question (Efron 1979).

    >>> low, high = bootstrap_interval([9.0, 11.0, 10.0, 14.0], [5, 5, 5, 5])  # nats and tokens of four documents
    >>> low < 44 / 20 < high
    True
    """
    import numpy as np

    top = np.asarray(numerators, dtype=np.float64)
    bottom = np.asarray(denominators, dtype=np.float64)
    generator = np.random.default_rng(seed)
    ratios = []
    for _ in range(BOOTSTRAP_SAMPLES):
        counts = generator.multinomial(len(top), np.full(len(top), 1 / len(top)))
        total = counts @ bottom
        if total > 0:
            ratios.append(counts @ top / total)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(ratios, [tail, 1 - tail])
    return float(low), float(high)


def tabulated(
    cases: "Sequence[object] | np.ndarray", parts: "np.ndarray", values: "Sequence[float] | np.ndarray"
) -> "np.ndarray":
    """Return the sum of the `values (rows,)` of each case and part, cases in order: float64 `(cases, parts)`.

    >>> import numpy as np
    >>> tabulated(["b", "a", "b"], np.array([0, 0, 1]), [1.0, 0.5, 1.0]).tolist()
    [[0.5, 0.0], [1.0, 1.0]]
    """
    import numpy as np

    index = np.unique(np.asarray(cases), return_inverse=True)[1]
    table = np.zeros((index.max() + 1, parts.max() + 1))
    np.add.at(table, (index, parts), values)
    return table


def signatures(counts: "np.ndarray") -> "np.ndarray":
    """Return a number for each item, the same for those with the same `counts (items, parts)`: int64 `(items,)`.

    >>> import numpy as np
    >>> signatures(np.array([[1, 0], [1, 1], [1, 0]])).tolist()  # two sentences of one phenomenon, and one of both
    [0, 1, 0]
    """
    import numpy as np

    return np.unique(counts, axis=0, return_inverse=True)[1].reshape(-1)


def cases_of(contexts: Sequence[str]) -> list[int]:
    """Return the case of each question: those of one context are one, as they stand or fall together.

    A context that is empty, or that of all questions, is a prompt and makes no case.

    >>> cases_of(["राम घर", "सीता घर", "राम घर"]), cases_of(["चुनिए:", "चुनिए:"])
    ([0, 1, 0], [0, 1])
    """
    shared = {context: number for number, context in enumerate(dict.fromkeys(contexts))}
    if len(shared) == 1:
        return list(range(len(contexts)))
    return [shared[context] if context else len(shared) + number for number, context in enumerate(contexts)]


def resampled(strata: "np.ndarray", *, draws: int = BOOTSTRAP_SAMPLES, seed: int = 0) -> "Iterator[np.ndarray]":
    """Yield, a draw at a time, how much each item counts, float64 `(items,)`; each stratum keeps its size.

    Of a stratum of n items n - 1 are drawn, with replacement, and count n / (n - 1) each: so the variance of a sum is
    estimated without bias (Rao, Wu and Yue 1992), where n of n would lose one item in each stratum. An item that is a
    stratum by itself counts 1 in all draws.

    >>> import numpy as np
    >>> [counts] = resampled(np.array([0, 1, 0, 1, 0, 2]), draws=1)
    >>> print(counts[[0, 2, 4]].sum(), counts[[1, 3]].sum(), counts[5])
    3.0 2.0 1.0
    """
    import numpy as np

    _, index, sizes = np.unique(strata, return_inverse=True, return_counts=True)
    order = np.argsort(index, kind="stable")
    drawn = np.maximum(1, sizes - 1)
    owners = np.repeat(np.arange(len(sizes)), drawn)
    begins, worth = (np.cumsum(sizes) - sizes)[owners], (sizes / drawn)[index]
    generator = np.random.default_rng(seed)
    for _ in range(draws):
        places = begins + generator.integers(sizes[owners])
        yield worth * np.bincount(order[places], minlength=len(index))


def agreement_limits(points: "np.ndarray", counts: "np.ndarray") -> tuple[float, float] | None:
    """Return the exact 95 % limits of a mean over parts of sum(points) / sum(counts), where no resample would vary.

    That is where each part `(items, parts)` has every point or none; None elsewhere. Of one part of n items it is the
    interval of Clopper and Pearson (1934). Of several, the limit is the least mean over parts with which all that was
    right would be so with a probability of 2.5 % yet (Buehler 1957): docs/decisions.md has the closed form.

    >>> import numpy as np
    >>> low, high = agreement_limits(np.ones((53, 1)), np.ones((53, 1)))
    >>> round(low, 4), high, round(0.025 ** (1 / 53), 4)
    (0.9328, 1.0, 0.9328)
    """
    right, wrong = (points == counts).all(axis=0), (points == 0).all(axis=0)
    if not (right | wrong).all():
        return None
    held = counts > 0
    shares = held / held.sum(axis=0) / held.shape[1]
    value = float(right.mean())
    low, high = (value - _reach(shares[:, right].sum(axis=1)), value + _reach(shares[:, wrong].sum(axis=1)))
    return max(0.0, low), min(1.0, high)


def _reach(shares: "np.ndarray") -> float:
    """Return how far sum(shares * p) can be from sum(shares) when the product of all p is half of 1 - CONFIDENCE.

    The least sum has p = min(1, level / share): where an item counts most, it is given up first.
    """
    import numpy as np

    shares = -np.sort(-shares[shares > 0])
    if not len(shares):
        return 0.0
    levels = np.exp((np.log((1 - CONFIDENCE) / 2) + np.cumsum(np.log(shares))) / np.arange(1, len(shares) + 1))
    last = int(np.argmax(levels >= np.append(shares[1:], 0)))
    return float(shares[: last + 1].sum() - (last + 1) * levels[last])


def token_perplexity_metric() -> "Metric":
    """Return an `evaluate.Metric` over `nll` (nats) and `tokens` of each row, which needs no network.

    Loading `evaluate` takes seconds, so it happens here and not at import.

    >>> figures = token_perplexity_metric().compute(predictions=[2.0, 4.0], references=[1, 2])
    >>> print(figures["loss"], round(figures["perplexity"], 3))
    2.0 7.389
    """
    import datasets
    import evaluate

    class TokenPerplexity(evaluate.Metric):  # type: ignore[misc]  # evaluate has no types
        """Compute the token-weighted loss in nats and its perplexity from per-row sums."""

        def _info(self) -> evaluate.MetricInfo:
            return evaluate.MetricInfo(
                description="Token-weighted negative log-likelihood and perplexity.",
                citation="",
                inputs_description="predictions: summed NLL of a row in nats; references: its predicted tokens.",
                features=datasets.Features(
                    {"predictions": datasets.Value("float64"), "references": datasets.Value("int64")}
                ),
            )

        def _compute(self, predictions: list[float], references: list[int]) -> dict[str, float]:
            nll, tokens = math.fsum(predictions), sum(references)
            return {"loss": nll / tokens, "perplexity": perplexity(nll, tokens)}

    return TokenPerplexity()
