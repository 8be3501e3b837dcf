"""Minimal pairs: does a model find the grammatical sentence of a pair more probable?"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hindi_babylm.evaluation.perplexity import document_nll
from hindi_babylm.evaluation.pseudo_likelihood import pseudo_nll
from hindi_babylm.masking import is_masked
from hindi_babylm.metrics import BOOTSTRAP_SAMPLES, CONFIDENCE
from hindi_babylm.orthography import normalize
from hindi_babylm.storage import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


@dataclass(frozen=True)
class Pair:
    """A grammatical sentence and its ungrammatical twin."""

    phenomenon: str
    good: str
    bad: str


def load_pairs(path: Path) -> list[Pair]:
    """Read a TSV with the columns `sen`, `wrong_sen` and, where known, `phenomenon`.

    Raises UserError for a missing file or column.

    >>> lines = ["phenomenon\\tsen\\twrong_sen", "number\\tलड़के घर हैं\\tलड़के घर है"]
    >>> _ = Path("pairs.tsv").write_text("\\n".join(lines), encoding="utf-8")
    >>> load_pairs(Path("pairs.tsv"))
    [Pair(phenomenon='number', good='लड़के घर हैं', bad='लड़के घर है')]
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    except OSError as error:
        raise UserError(f"evaluation: cannot read the minimal pairs {path}: {error.strerror}") from error
    if not rows:
        raise UserError(f"evaluation: {path} holds no minimal pair")
    missing = {"sen", "wrong_sen"} - set(rows[0])
    if missing:
        raise UserError(f"evaluation: {path} lacks the columns {', '.join(sorted(missing))}; it has {list(rows[0])}")
    return [Pair(row.get("phenomenon") or "all", normalize(row["sen"]), normalize(row["wrong_sen"])) for row in rows]


def encode_pairs(tokenizer: "PreTrainedTokenizerFast", pairs: Sequence[Pair], *, block_size: int) -> list[np.ndarray]:
    """Return the token ids of the sentences, good and bad in turn: int64 `(tokens,)` each.

    Raises UserError when a sentence does not fit into `block_size`.
    """
    backend = tokenizer.backend_tokenizer
    backend.encode_special_tokens = True
    sentences = [sentence for pair in pairs for sentence in (pair.good, pair.bad)]
    encoded = [np.asarray(encoding.ids) for encoding in backend.encode_batch(sentences, add_special_tokens=False)]
    longest = max(range(len(encoded)), key=lambda index: len(encoded[index]))
    if len(encoded[longest]) > block_size:
        raise UserError(
            f"evaluation: a minimal pair of {len(encoded[longest])} tokens is longer than block_size {block_size}: "
            f"raise block_size or leave the suite out of evaluation.tasks ({sentences[longest][:60]}...)"
        )
    return encoded


def score_pairs(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerFast",
    pairs: Sequence[Pair],
    *,
    block_size: int,
    seed: int = 0,
) -> dict[str, Any]:
    """Return the `accuracies` of a model, which reads each sentence after EOS.

    The model must be in fp32: half precision makes ties. Of a masked model the pseudo-log-likelihood counts.

    Raises UserError when a sentence does not fit into `block_size`: a truncated pair may have lost its difference.

    >>> from hindi_babylm.modeling import build_model
    >>> from hindi_babylm.tokenization.training import train_tokenizer
    >>> tokenizer = train_tokenizer(["लड़का है", "लड़के हैं"] * 10, vocab_size=512)
    >>> size = {"n_layer": 1, "n_embd": 32, "n_head": 2}
    >>> model = build_model(architecture="gpt2", tokenizer=tokenizer, block_size=16, model_config=size)
    >>> pairs = [Pair("number", good="लड़के हैं", bad="लड़के है")]
    >>> scores = score_pairs(model, tokenizer, pairs, block_size=16)
    >>> scores["macro"]["value"] in (0.0, 50.0, 100.0), scores["phenomena"]["number"]["pairs"]
    (True, 1)
    """
    encoded = encode_pairs(tokenizer, pairs, block_size=block_size)
    settings: Any = {"block_size": block_size, "description": "Minimal pairs"}
    if is_masked(type(model).__name__):
        nll, _ = pseudo_nll(model, tokenizer, [text for pair in pairs for text in (pair.good, pair.bad)], **settings)
    else:
        assert isinstance(tokenizer.eos_token_id, int)
        nll = document_nll(model, encoded, eos_token_id=tokenizer.eos_token_id, **settings)
    return accuracies(pairs, nll, seed=seed)


def accuracies(pairs: Sequence[Pair], nll: np.ndarray, *, seed: int = 0) -> dict[str, Any]:
    """Return the accuracy in percent of each phenomenon and their mean (macro), with its 95 % interval over pairs.

    `nll (2 * pairs,)` is that of the sentences, good and bad in turn. A pair counts 1 when the good one is the more
    probable, 0.5 when they are equal.
    """
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
