"""Minimal pairs: does a model find the grammatical sentence of a pair more probable?"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hindi_babylm.evaluation.tables import HubTable, read_table
from hindi_babylm.orthography import count_bytes, normalize
from hindi_babylm.storage import UserError

if TYPE_CHECKING:
    import numpy as np

    from hindi_babylm.evaluation.ngram import Floors
    from hindi_babylm.evaluation.scorer import Scorer


@dataclass(frozen=True)
class Pair:
    """A grammatical sentence and its ungrammatical twin."""

    phenomenon: str
    good: str
    bad: str


def load_pairs(place: Path | HubTable) -> list[Pair]:
    """Read a TSV, or a table of the hub, with the columns `sen`, `wrong_sen` and, where known, `phenomenon`.

    Raises UserError for a missing file or column, and for two equal sentences.

    >>> lines = ["phenomenon\\tsen\\twrong_sen", "number\\tलड़के घर हैं\\tलड़के घर है"]
    >>> _ = Path("pairs.tsv").write_text("\\n".join(lines), encoding="utf-8")
    >>> load_pairs(Path("pairs.tsv"))
    [Pair(phenomenon='number', good='लड़के घर हैं', bad='लड़के घर है')]
    """
    rows = read_table(place, columns=("sen", "wrong_sen"))
    pairs = [Pair(row.get("phenomenon") or "all", normalize(row["sen"]), normalize(row["wrong_sen"])) for row in rows]
    for number, pair in enumerate(pairs, start=1):
        if pair.good == pair.bad:
            raise UserError(f"evaluation: {place}: row {number}: sen and wrong_sen are equal: {pair.good[:60]}")
    return pairs


def pair_texts(pairs: Sequence[Pair]) -> list[str]:
    """Return the sentences of pairs, good and bad in turn."""
    return [sentence for pair in pairs for sentence in (pair.good, pair.bad)]


def encode_pairs(tokenizer: Any, pairs: Sequence[Pair], *, block_size: int) -> "list[np.ndarray]":
    """Return the token ids of the sentences, good and bad in turn: int64 `(tokens,)` each.

    Raises UserError when a sentence does not fit into `block_size`.
    """
    from hindi_babylm.evaluation.scorer import encode

    sentences = pair_texts(pairs)
    encoded = encode(tokenizer, sentences)
    longest = max(range(len(encoded)), key=lambda index: len(encoded[index]))
    if len(encoded[longest]) > block_size:
        raise UserError(
            f"evaluation: a minimal pair of {len(encoded[longest])} tokens is longer than block_size {block_size}: "
            f"raise block_size or leave the suite out of evaluation.tasks ({sentences[longest][:60]}...)"
        )
    return encoded


def score_pairs(
    scorer: "Scorer", pairs: Sequence[Pair], *, floors: "Floors | None" = None, seed: int = 0
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the `accuracies` of a model, beside those of the trigram, and a row for each pair.

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

    encoded = encode_pairs(scorer.tokenizer, pairs, block_size=scorer.block_size)
    sentences = pair_texts(pairs)
    nll, _ = scorer.nll(sentences, "Minimal pairs")
    figures = accuracies(pairs, nll, seed=seed)
    if floors is not None:
        figures["trigram"] = accuracies(pairs, floors.trigram_nll(encoded), seed=seed)
    tokens = [len(ids) for ids in encoded]
    sizes = [count_bytes(sentence) for sentence in sentences]
    points = np.where(nll[0::2] < nll[1::2], 1.0, np.where(nll[0::2] == nll[1::2], 0.5, 0.0))
    items = [
        {
            "index": index,
            "phenomenon": pair.phenomenon,
            "sen": pair.good,
            "wrong_sen": pair.bad,
            "nll": float(nll[2 * index]),
            "wrong_nll": float(nll[2 * index + 1]),
            "tokens": tokens[2 * index],
            "wrong_tokens": tokens[2 * index + 1],
            "bytes": sizes[2 * index],
            "wrong_bytes": sizes[2 * index + 1],
            "points": float(points[index]),
        }
        for index, pair in enumerate(pairs)
    ]
    return figures, items


def accuracies(pairs: Sequence[Pair], nll: "np.ndarray", *, seed: int = 0) -> dict[str, Any]:
    """Return the accuracy in percent of each phenomenon and their mean (macro), with its 95 % interval over pairs.

    `nll (2 * pairs,)` is that of the sentences, good and bad in turn. A pair counts 1 when the good one is the more
    probable, 0.5 when they are equal.
    """
    import numpy as np

    from hindi_babylm.metrics import BOOTSTRAP_SAMPLES, CONFIDENCE

    good, bad = nll[0::2], nll[1::2]
    points = np.where(good < bad, 1.0, np.where(good == bad, 0.5, 0.0))
    names = np.asarray([pair.phenomenon for pair in pairs])
    generator = np.random.default_rng(seed)
    phenomena = {}
    samples = []
    for name in sorted(set(names.tolist())):
        own = points[names == name]
        phenomena[name] = {
            "accuracy": 100 * float(own.mean()),
            "pairs": len(own),
            "ties": int((own == 0.5).sum()),
        }
        # Resampled within each phenomenon, as the macro average weighs phenomena and not pairs.
        samples.append(generator.choice(own, size=(BOOTSTRAP_SAMPLES, len(own))).mean(axis=1))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(np.mean(samples, axis=0), [tail, 1 - tail])
    macro = float(np.mean([entry["accuracy"] for entry in phenomena.values()]))
    return {"macro": {"value": macro, "low": 100 * float(low), "high": 100 * float(high)}, "phenomena": phenomena}
