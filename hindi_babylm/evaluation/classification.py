"""Classification tasks: their texts and labels, the figures of predictions, and the baselines beside them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import regex

from hindi_babylm.evaluation.tables import read_table
from hindi_babylm.orthography import normalize
from hindi_babylm.storage import UserError

if TYPE_CHECKING:
    import numpy as np

TEXT_COLUMNS = ("text", "Sentence")
LABEL_COLUMNS = ("category", "label")
# The inverse strength of the logistic regression's penalty: at scikit-learn's 1 it underfits these small tables.
BAG_OF_WORDS_C = 10.0
# scikit-learn's own pattern ends a word at each matra and virama, which are no letters.
_WORD = regex.compile(r"[\p{L}\p{M}\p{N}\u200c\u200d]+")


@dataclass(frozen=True)
class Labelled:
    """Texts with a label each."""

    texts: list[str]
    labels: list[str]


@dataclass(frozen=True)
class Classification:
    """The three splits of a task; `left_out` counts the training texts that dev or test has too."""

    name: str
    train: Labelled
    dev: Labelled
    test: Labelled
    left_out: int

    @property
    def classes(self) -> list[str]:
        """The labels that can be learned, in order."""
        return sorted(set(self.train.labels))

    @property
    def unseen(self) -> list[str]:
        """The labels of the test split that no training text has."""
        return sorted(set(self.test.labels) - set(self.train.labels))


def load_classification(folder: Path) -> Classification:
    """Read a folder with `train.tsv`, `dev.tsv` (or `validation.tsv`) and `test.tsv`, or `X_train_data.tsv` and so on.

    The column of texts is `text` or `Sentence`, that of labels `category`, `label` or the only `*_Label`. Training
    texts with the words of a dev or test text are left out: the test would ask what was learned by heart.

    Raises UserError for a missing file or column, for an empty field, and for a train split of one label.

    >>> for split, rows in {"train": ["राम आया\\tक", "सीता आई।\\tख", "वह गई\\tख"], "dev": ["वह आया\\tक"]}.items():
    ...     _ = Path(f"{split}.tsv").write_text("\\n".join(["text\\tlabel", *rows]), encoding="utf-8")
    >>> _ = Path("test.tsv").write_text("text\\tlabel\\nसीता आई\\tख", encoding="utf-8")
    >>> task = load_classification(Path())
    >>> task.classes, task.train.texts, task.left_out
    (['क', 'ख'], ['राम आया', 'वह गई'], 1)
    """
    train, dev, test = (
        _read_split(_find_split(folder, names)) for names in (("train",), ("dev", "validation"), ("test",))
    )
    held_out = {_spoken(text) for split in (dev, test) for text in split.texts}
    kept = [index for index, text in enumerate(train.texts) if _spoken(text) not in held_out]
    left_out = len(train.texts) - len(kept)
    train = Labelled([train.texts[index] for index in kept], [train.labels[index] for index in kept])
    if len(set(train.labels)) < 2:
        raise UserError(f"evaluation: the train split of {folder} has {len(set(train.labels))} labels: expected two")
    return Classification(folder.resolve().name, train, dev, test, left_out)


def scored_texts(task: Classification) -> list[str]:
    """Return the texts of the test split."""
    return task.test.texts


def words_of(text: str) -> list[str]:
    """Return the words of a text, case folded: letters with their signs and joiners, and digits.

    >>> words_of("क्षत्रिय ने कहा: १२ IPL!")
    ['क्षत्रिय', 'ने', 'कहा', '१२', 'ipl']
    """
    words: list[str] = _WORD.findall(text.casefold())
    return words


def majority(task: Classification) -> str:
    """Return the label that most training texts have, of equally frequent ones the first.

    >>> train = Labelled(["", "", ""], ["ख", "क", "ख"])
    >>> majority(Classification("x", train, train, train, 0))
    'ख'
    """
    counts = Counter(task.train.labels)
    return min(counts, key=lambda label: (-counts[label], label))


def bag_of_words(task: Classification) -> list[str]:
    """Return the labels that a logistic regression over TF-IDF of words, fitted to train, gives the test texts.

    Without a word in train it knows the frequencies of the labels alone, and gives the majority.

    >>> train = Labelled(["राम ने फल खाया", "फल मीठा है", "नदी में पानी है", "पानी बहता है"], ["फल", "फल", "जल", "जल"])
    >>> test = Labelled(["कच्चा फल", "ठंडा पानी"], ["फल", "जल"])
    >>> bag_of_words(Classification("x", train, test, test, 0))
    ['फल', 'जल']
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    if not any(map(words_of, task.train.texts)):
        return [majority(task)] * len(task.test.texts)
    vectorizer = TfidfVectorizer(analyzer=words_of)
    regression = LogisticRegression(C=BAG_OF_WORDS_C, max_iter=1000)
    regression.fit(vectorizer.fit_transform(task.train.texts), task.train.labels)
    return [str(label) for label in regression.predict(vectorizer.transform(task.test.texts))]


def figures_of(labels: Sequence[str], predicted: Sequence[Sequence[str]], *, seed: int = 0) -> dict[str, Any]:
    """Return macro-F1 and accuracy in percent, means over the classifiers, with 95 % intervals over the texts.

    `labels (texts,)` are true; `predicted (classifiers, texts)`. Each resample of the texts (Efron 1979) is the same
    for all classifiers, so the intervals say what other texts would change and not what other seeds would. Where all
    texts agree the limits of the accuracy are exact ones (docs/decisions.md).

    >>> figures = figures_of(["a", "a", "b", "b"], [["a", "a", "b", "b"], ["a", "a", "a", "a"]])
    >>> figures["accuracy"]["value"], round(figures["macro_f1"]["value"], 1)  # of 1 and 1/3
    (75.0, 66.7)
    """
    import numpy as np

    from hindi_babylm.metrics import BOOTSTRAP_SAMPLES, CONFIDENCE, agreement_limits, bootstrap_interval

    codes = {label: code for code, label in enumerate(sorted({*labels, *(name for row in predicted for name in row)}))}
    true = np.asarray([codes[label] for label in labels])
    found = np.asarray([[codes[label] for label in row] for row in predicted])
    points = (found == true).mean(axis=0)
    exact = agreement_limits(points[:, None], np.ones((len(true), 1)))
    low, high = exact or bootstrap_interval(points, np.ones(len(true)), seed=seed)
    accuracy = {"value": points.mean(), "low": low, "high": high}
    generator = np.random.default_rng(seed)
    samples = []
    for _ in range(BOOTSTRAP_SAMPLES):
        counts = generator.multinomial(len(true), np.full(len(true), 1 / len(true)))
        samples.append(np.mean([macro_f1(true, row, counts) for row in found]))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(samples, [tail, 1 - tail])
    macro = {"value": np.mean([macro_f1(true, row) for row in found]), "low": low, "high": high}
    return {
        name: {key: 100 * float(value) for key, value in entry.items()}
        for name, entry in (("macro_f1", macro), ("accuracy", accuracy))
    }


def values_of(labels: Sequence[str], predicted: Sequence[str]) -> dict[str, float]:
    """Return macro-F1 and accuracy of one classifier in percent, without their intervals.

    >>> values_of(["a", "a", "b", "b"], ["a", "a", "a", "a"])["accuracy"]
    50.0
    """
    import numpy as np

    codes = {label: code for code, label in enumerate(sorted({*labels, *predicted}))}
    true, found = (np.asarray([codes[label] for label in row]) for row in (labels, predicted))
    return {"macro_f1": 100 * macro_f1(true, found), "accuracy": 100 * float((true == found).mean())}


def macro_f1(labels: "np.ndarray", predicted: "np.ndarray", counts: "np.ndarray | None" = None) -> float:
    """Return the mean of the F1 of each class that a text has or is given: scikit-learn's `f1_score`, macro average.

    `labels` and `predicted (texts,)` are numbers of classes, `counts (texts,)` how often each text counts.

    >>> import numpy as np
    >>> macro_f1(np.array([0, 0, 1, 1]), np.array([0, 0, 1, 2]))  # of 1, 2/3 and 0
    0.5555555555555555
    """
    import numpy as np

    if counts is None:
        counts = np.ones(len(labels))
    classes = int(max(labels.max(), predicted.max())) + 1
    named = np.bincount(labels, counts, classes) + np.bincount(predicted, counts, classes)
    right = np.bincount(labels, counts * (labels == predicted), classes)
    return float(np.mean(2 * right[named > 0] / named[named > 0]))


def _spoken(text: str) -> str:
    """Return what two texts have in common that differ in punctuation, spaces and case alone."""
    return " ".join(words_of(text)) or text


def _find_split(folder: Path, names: Sequence[str]) -> Path:
    patterns = [f"{name}.tsv" for name in names] + [f"*_{name}_data.tsv" for name in names]
    found = sorted({path for pattern in patterns for path in folder.glob(pattern)})
    if len(found) != 1:
        raise UserError(
            f"evaluation: {folder} has {len(found)} files of the {names[0]} split: expected one of "
            f"{', '.join(patterns)}"
        )
    return found[0]


def _read_split(path: Path) -> Labelled:
    rows = read_table(path, columns=())
    texts = [name for name in TEXT_COLUMNS if name in rows[0]]
    labels = [name for name in LABEL_COLUMNS if name in rows[0]] or [
        name for name in rows[0] if name.endswith("_Label")
    ]
    for what, found, known in (
        ("texts", texts, TEXT_COLUMNS),
        ("labels", labels, (*LABEL_COLUMNS, "*_Label")),
    ):
        if len(found) != 1:
            raise UserError(
                f"evaluation: {path} has {len(found)} columns of {what}: expected one of {', '.join(known)}; "
                f"it has {', '.join(rows[0])}"
            )
    for number, row in enumerate(rows, start=2):
        if not row[texts[0]].strip() or not row[labels[0]].strip():
            raise UserError(f"evaluation: {path}: line {number} lacks its text or its label")
    return Labelled([normalize(row[texts[0]]) for row in rows], [row[labels[0]].strip() for row in rows])
