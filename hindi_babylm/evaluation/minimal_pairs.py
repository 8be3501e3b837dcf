"""Minimal pairs: does a model find the grammatical sentence of a pair more probable?"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import regex

from hindi_babylm.evaluation.tables import HubTable, read_table
from hindi_babylm.orthography import count_bytes, normalize
from hindi_babylm.storage import UserError

if TYPE_CHECKING:
    import numpy as np

    from hindi_babylm.evaluation.ngram import Floors
    from hindi_babylm.evaluation.scorer import Scorer


# fmt: off
ERGATIVE = frozenset([
    "ने", "मैंने", "हमने", "तूने", "तुमने", "आपने", "इसने", "इन्होंने", "उसने", "उन्होंने", "किसने", "किन्होंने",
    "जिसने", "जिन्होंने", "किसीने", "सबने",
])
# fmt: on
_SIGNS = regex.compile(r"[^\p{L}\p{M}\p{N}\s]+")


@dataclass(frozen=True)
class Pair:
    """A grammatical sentence and its ungrammatical twin."""

    phenomenon: str
    good: str
    bad: str
    change: str = ""
    """What became what, as `A -> B`: by the features that the suite names, by ने, or by the words."""


def load_pairs(place: Path | HubTable) -> list[Pair]:
    """Read a TSV, or a table of the hub, with the columns `sen`, `wrong_sen` and, where known, `phenomenon`.

    `feature_vals`, as MultiBLiMP has them, say what was changed; elsewhere the sentences do, see `change_of`. Raises
    UserError for a missing file or column, and for two equal sentences.

    >>> lines = ["phenomenon\\tsen\\twrong_sen", "number\\tलड़के घर हैं\\tलड़के घर है"]
    >>> _ = Path("pairs.tsv").write_text("\\n".join(lines), encoding="utf-8")
    >>> load_pairs(Path("pairs.tsv"))
    [Pair(phenomenon='number', good='लड़के घर हैं', bad='लड़के घर है', change='हैं -> है')]
    """
    rows = read_table(place, columns=("sen", "wrong_sen"))
    pairs = []
    for row in rows:
        good, bad = normalize(row["sen"]), normalize(row["wrong_sen"])
        change = row.get("feature_vals") or change_of(good, bad)
        pairs.append(Pair(row.get("phenomenon") or "all", good, bad, change))
    for number, pair in enumerate(pairs, start=1):
        if pair.good == pair.bad:
            raise UserError(f"evaluation: {place}: row {number}: sen and wrong_sen are equal: {pair.good[:60]}")
    return pairs


def change_of(good: str, bad: str) -> str:
    """Return what was changed between two sentences, `A -> B`: ने that was left out or added, or else the words.

    >>> change_of("उसने खाया।", "वह खाया।"), change_of("लड़के गए।", "लड़के गया।")
    ('with ने -> without ने', 'गए -> गया')
    """
    one, other = (_SIGNS.sub("", sentence).split() for sentence in (good, bad))
    while one and other and one[0] == other[0]:
        del one[0], other[0]
    while one and other and one[-1] == other[-1]:
        del one[-1], other[-1]
    ergative = [sum(word in ERGATIVE for word in words) for words in (one, other)]
    if ergative[0] != ergative[1]:
        names = ("with ने", "without ने") if ergative[0] > ergative[1] else ("without ने", "with ने")
        return " -> ".join(names)
    return f"{' '.join(one)} -> {' '.join(other)}"


def pair_texts(pairs: Sequence[Pair]) -> list[str]:
    """Return the sentences of pairs, good and bad in turn."""
    return [sentence for pair in pairs for sentence in (pair.good, pair.bad)]


def encode_pairs(tokenizer: Any, pairs: Sequence[Pair], *, room: int) -> "list[np.ndarray]":
    """Return the token ids of the sentences, good and bad in turn: int64 `(tokens,)` each.

    Raises UserError when a sentence is longer than the `room` for it in the model's context, and when it has no token.
    """
    from hindi_babylm.evaluation.scorer import encode

    sentences = pair_texts(pairs)
    encoded = encode(tokenizer, sentences)
    longest = max(range(len(encoded)), key=lambda index: len(encoded[index]))
    if len(encoded[longest]) > room:
        raise UserError(
            f"evaluation: a minimal pair of {len(encoded[longest])} tokens is longer than the {room} that fit: raise "
            f"block_size or leave the suite out of tasks ({sentences[longest][:60]}...)"
        )
    empty = next((sentence for sentence, ids in zip(sentences, encoded, strict=True) if not len(ids)), None)
    if empty is not None:  # nothing has the probability 1
        raise UserError(
            f"evaluation: the tokenizer {tokenizer.name_or_path!r} makes no token of a sentence of a minimal pair: "
            f"leave the suite out of tasks, or take a model whose tokenizer knows its letters ({empty[:60]}...)"
        )
    return encoded


def score_pairs(
    scorer: "Scorer", pairs: Sequence[Pair], *, floors: "Floors | None" = None, seed: int = 0
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the `accuracies` of a model and what to hold against them, and a row for each pair.

    `per_byte` are those by nats a byte; `length_only` those of taking the sentence of fewer tokens, which is what a
    model of constant logits does; `trigram` those of the trigram of the training tokens; `halves` those of each
    direction of a change that the suite has in both.

    The model must be in fp32: half precision makes ties. Of a masked model the pseudo-log-likelihood counts.

    Raises UserError when a sentence does not fit into the context: a truncated pair may have lost its difference.

    >>> from hindi_babylm.evaluation.scorer import Scorer
    >>> from hindi_babylm.modeling import build_model
    >>> from hindi_babylm.tokenization.training import train_tokenizer
    >>> tokenizer = train_tokenizer(["लड़का है", "लड़के हैं"] * 10, vocab_size=512)
    >>> size = {"n_layer": 1, "n_embd": 32, "n_head": 2}
    >>> model = build_model(architecture="gpt2", tokenizer=tokenizer, block_size=16, model_config=size)
    >>> pairs = [Pair("number", good="लड़के हैं", bad="लड़के है")]
    >>> scores, items = score_pairs(Scorer.of(model, tokenizer, block_size=16), pairs)
    >>> scores["macro"]["value"] == 100 * items[0]["points"], scores["phenomena"]["number"]["pairs"]
    (True, 1)
    """
    import numpy as np

    encoded = encode_pairs(scorer.tokenizer, pairs, room=scorer.room)
    sentences = pair_texts(pairs)
    nll, _ = scorer.nll(sentences, "Minimal pairs")
    tokens = np.asarray([len(ids) for ids in encoded])
    sizes = np.asarray([count_bytes(sentence) for sentence in sentences])
    figures = {
        **accuracies(pairs, nll, seed=seed),
        "chance": 50.0,
        "per_byte": accuracies(pairs, nll / sizes, seed=seed),
        "length_only": accuracies(pairs, tokens, seed=seed),
    }
    if found := halves(pairs, nll):
        figures["halves"] = found
    if floors is not None:
        figures["trigram"] = accuracies(pairs, floors.trigram_nll(encoded), seed=seed)
    points = points_of(nll)
    items = [
        {
            "index": index,
            "phenomenon": pair.phenomenon,
            "sen": pair.good,
            "wrong_sen": pair.bad,
            "nll": float(nll[2 * index]),
            "wrong_nll": float(nll[2 * index + 1]),
            "tokens": int(tokens[2 * index]),
            "wrong_tokens": int(tokens[2 * index + 1]),
            "bytes": int(sizes[2 * index]),
            "wrong_bytes": int(sizes[2 * index + 1]),
            "points": float(points[index]),
        }
        for index, pair in enumerate(pairs)
    ]
    return figures, items


def points_of(nll: "np.ndarray") -> "np.ndarray":
    """Return 1 for each pair whose good sentence is the more probable, 0.5 for a tie, else 0: `(pairs,)`.

    `nll (2 * pairs,)` is that of the sentences, good and bad in turn. Sums that differ by the order of adding alone are
    equal.
    """
    import numpy as np

    good, bad = nll[0::2], nll[1::2]
    return np.where(np.isclose(good, bad, rtol=1e-9, atol=0), 0.5, (good < bad).astype(float))


def halves(pairs: Sequence[Pair], nll: "np.ndarray") -> dict[str, dict[str, dict[str, Any]]]:
    """Return, by phenomenon, the accuracies of changes that occur in both directions, and the lower one of the two.

    A model that always takes the same of two forms is right in all of one half and in none of the other.

    >>> import numpy as np
    >>> pairs = [Pair("x", "", "", "है -> हैं"), Pair("x", "", "", "हैं -> है"), Pair("x", "", "", "था -> थी")]
    >>> halves(pairs, np.array([1, 2, 3, 2, 1, 2]))["x"]["है / हैं"]["minimum"]  # है is the more probable in both
    0.0
    """
    points = points_of(nll)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for phenomenon, change in sorted({(pair.phenomenon, pair.change) for pair in pairs}):
        ways = change, " -> ".join(reversed(change.split(" -> ")))
        own = [points[[pair.phenomenon == phenomenon and pair.change == way for pair in pairs]] for way in ways]
        if ways[0] < ways[1] and len(own[1]):
            figures: dict[str, Any] = {way: _accuracy(part) for way, part in zip(ways, own, strict=True)}
            lowest = min(entry["accuracy"] for entry in figures.values())
            found.setdefault(phenomenon, {})[change.replace(" -> ", " / ")] = {**figures, "minimum": lowest}
    return found


def _accuracy(points: "np.ndarray") -> dict[str, Any]:
    return {"accuracy": 100 * float(points.mean()), "pairs": len(points), "ties": int((points == 0.5).sum())}


def accuracies(pairs: Sequence[Pair], nll: "np.ndarray", *, seed: int = 0) -> dict[str, Any]:
    """Return the accuracy in percent of each phenomenon and their mean (macro), with 95 % intervals over sentences.

    `nll (2 * pairs,)` is that of the sentences, good and bad in turn. A pair counts 1 when the good one is the more
    probable, 0.5 when they are equal. What is drawn is the good sentence with all of its pairs, among those that are
    paired in the same phenomena; where all pairs agree the limits are exact ones (docs/decisions.md).

    >>> import numpy as np
    >>> pairs = [Pair("a", f"sentence {number}", "") for number in range(100)]
    >>> figures = accuracies(pairs, np.array([1.0, 2.0] * 70 + [2.0, 1.0] * 30))
    >>> figures["macro"]["low"] < figures["phenomena"]["a"]["accuracy"] == 70 < figures["macro"]["high"]
    True
    """
    import numpy as np

    from hindi_babylm.metrics import CONFIDENCE, agreement_limits, resampled, signatures, tabulated

    points = points_of(nll)
    names, index = np.unique([pair.phenomenon for pair in pairs], return_inverse=True)
    sentences = [pair.good for pair in pairs]
    right, counts = (tabulated(sentences, index, values) for values in (points, np.ones(len(pairs))))
    # One set of draws for all, in which a phenomenon keeps its size: the macro average weighs phenomena, not pairs.
    samples = np.stack([(draw @ right) / (draw @ counts) for draw in resampled(signatures(counts), seed=seed)])

    def interval(parts: Sequence[int]) -> dict[str, float]:
        tail = (1 - CONFIDENCE) / 2
        own = counts[:, parts].sum(axis=1) > 0
        exact = agreement_limits(right[own][:, parts], counts[own][:, parts])
        low, high = exact or np.quantile(samples[:, parts].mean(axis=1), [tail, 1 - tail])
        return {"low": 100 * float(low), "high": 100 * float(high)}

    phenomena = {str(name): {**_accuracy(points[index == part]), **interval([part])} for part, name in enumerate(names)}
    macro = float(np.mean([entry["accuracy"] for entry in phenomena.values()]))
    return {"macro": {"value": macro, **interval(range(len(names)))}, "phenomena": phenomena}
