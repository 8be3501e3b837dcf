"""Turn sums of negative log-likelihoods into perplexity and bits per unit: sum nats and counts, divide once."""

import math
from collections.abc import Sequence
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

    An item is what was drawn independently: a document, a minimal pair (Efron 1979).

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
