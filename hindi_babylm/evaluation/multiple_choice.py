"""Multiple choice and cloze: does a model find the right completion the most probable one?"""

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import regex

from hindi_babylm.orthography import count_bytes, normalize
from hindi_babylm.storage import UserError

if TYPE_CHECKING:
    import numpy as np

    from hindi_babylm.evaluation.ngram import Floors
    from hindi_babylm.evaluation.scorer import Scorer

_BLANK = regex.compile(r"_{3,}")


@dataclass(frozen=True)
class Question:
    """A context with its choices; `answer` is the index of the right one.

    >>> Question("राम ___ जाता है।", ("घर", "घरों"), answer=0).texts
    ['राम घर जाता है।', 'राम घरों जाता है।']
    >>> Question("राम घर", ("गया", "गई"), answer=0).texts
    ['राम घर गया', 'राम घर गई']
    """

    context: str
    choices: tuple[str, ...]
    answer: int

    @property
    def is_cloze(self) -> bool:
        """Whether the choices stand at a blank of the context, and not behind it."""
        return _BLANK.search(self.context) is not None

    @property
    def texts(self) -> list[str]:
        """The context with each choice at its blank, else behind it, after a space where there is no white space."""
        if self.is_cloze:
            before, after = _BLANK.split(self.context)
            return [before + choice + after for choice in self.choices]
        space = " " if self.context and not self.context[-1].isspace() else ""
        return [self.context + space + choice for choice in self.choices]


def load_questions(path: Path) -> list[Question]:
    """Read JSON lines of `context`, `choices` and `answer`, the index or the text of the right choice.

    A blank in the context, three underscores or more, is where the choices are put in; without one they follow it.

    Raises UserError for a file that cannot be read, and for a line that is no question.

    >>> _ = Path("questions.jsonl").write_text('{"context": "राम घर", "choices": ["गई", "गया"], "answer": "गया"}')
    >>> load_questions(Path("questions.jsonl"))
    [Question(context='राम घर', choices=('गई', 'गया'), answer=1)]
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise UserError(f"evaluation: cannot read {path}: {reason}") from error
    questions = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                questions.append(_question(json.loads(line)))
            except ValueError as error:
                raise UserError(f"evaluation: {path}: line {number} is no question: {error}") from error
    if not questions:
        raise UserError(f"evaluation: {path} holds no question")
    return questions


def question_texts(questions: Sequence[Question]) -> list[str]:
    """Return the texts of questions, one for each choice."""
    return [text for question in questions for text in question.texts]


def encode_questions(
    tokenizer: Any, questions: Sequence[Question], *, room: int
) -> "tuple[list[np.ndarray], list[int]]":
    """Return the token ids of `question_texts`, int64 `(tokens,)` each, and how many of them are given.

    At a blank the whole text counts, and nothing is given. Else the text is tokenized as a whole, and what its choices
    and the context alone begin with in common is given: a token that spans the end of the context, which may be another
    one for each choice, counts as the choices'.

    Raises UserError for a text that is longer than the `room` for it in the model's context.
    """
    from hindi_babylm.evaluation.scorer import encode

    encoded = encode(tokenizer, question_texts(questions))
    contexts = encode(tokenizer, [question.context for question in questions])
    given: list[int] = []
    for number, (question, context) in enumerate(zip(questions, contexts, strict=True), start=1):
        own = encoded[len(given) : len(given) + len(question.choices)]
        longest = max(map(len, own))
        if longest > room:
            raise UserError(
                f"evaluation: question {number} has {longest} tokens, more than the {room} that fit: raise block_size "
                f"or leave the suite out of tasks ({question.context[:60]}...)"
            )
        shared = 0 if question.is_cloze else _shared([context, *own])
        if min(map(len, own)) == shared:
            raise UserError(
                f"evaluation: question {number} has a choice of no token: change it, leave the suite out of tasks, or "
                f"take a model whose tokenizer knows its letters ({', '.join(question.choices)})"
            )
        given += [shared] * len(own)
    return encoded, given


def score_questions(
    scorer: "Scorer", questions: Sequence[Question], *, floors: "Floors | None" = None, seed: int = 0
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the `accuracy` of a model by NLL and by NLL a byte, beside chance and a trigram, and a row a question.

    At a blank the NLL of the whole texts is compared, else that of the choices, given the context; of a masked model
    the pseudo-log-likelihood of the same tokens. The model must be in fp32: half precision makes ties.

    Raises UserError for a text that does not fit into the context.

    >>> from hindi_babylm.evaluation.scorer import Scorer
    >>> from hindi_babylm.modeling import build_model
    >>> from hindi_babylm.tokenization.training import train_tokenizer
    >>> tokenizer = train_tokenizer(["राम घर गया", "सीता घर गई"] * 10, vocab_size=512)
    >>> size = {"n_layer": 1, "n_embd": 32, "n_head": 2}
    >>> model = build_model(architecture="gpt2", tokenizer=tokenizer, block_size=16, model_config=size)
    >>> questions = [Question("राम घर", ("गया", "गई"), answer=0)]
    >>> figures, items = score_questions(Scorer.of(model, tokenizer, block_size=16), questions)
    >>> figures["chance"], figures["accuracy"]["value"] == 100 * items[0]["points"]
    (50.0, True)
    """
    import numpy as np

    from hindi_babylm.metrics import cases_of

    encoded, given = encode_questions(scorer.tokenizer, questions, room=scorer.room)
    nll, _ = scorer.nll(question_texts(questions), "Multiple choice", given=given)
    sizes = np.asarray([count_bytes(part) for question in questions for part in _scored(question)])
    ends = np.cumsum([len(question.choices) for question in questions])[:-1]
    answers = [question.answer for question in questions]
    cases = cases_of([question.context for question in questions])
    by_question, by_byte = np.split(nll, ends), np.split(nll / sizes, ends)
    figures = {
        **accuracy(by_question, answers, cases=cases, seed=seed),
        "per_byte": accuracy(by_byte, answers, cases=cases, seed=seed),
        "questions": len(questions),
        "chance": 100 * float(np.mean([1 / len(question.choices) for question in questions])),
    }
    if floors is not None:
        contexts = [ids[:count] for ids, count in zip(encoded, given, strict=True)]
        floor = floors.trigram_nll(encoded) - floors.trigram_nll(contexts)
        figures["trigram"] = accuracy(np.split(floor, ends), answers, cases=cases, seed=seed)
    items = [
        {
            "index": index,
            "context": question.context,
            "choices": list(question.choices),
            "answer": question.answer,
            "nll": own.tolist(),
            "bytes": own_sizes.tolist(),
            "points": points_of(own, question.answer),
        }
        for index, (question, own, own_sizes) in enumerate(
            zip(questions, by_question, np.split(sizes, ends), strict=True)
        )
    ]
    return figures, items


def accuracy(
    scores: "Sequence[np.ndarray]", answers: Sequence[int], *, cases: Sequence[int], seed: int = 0
) -> dict[str, Any]:
    """Return the mean of `points_of` the questions in percent, with its 95 % interval over `cases`, and their ties.

    `scores` are those of the choices of each question, `(choices,)`: the lowest is chosen. `cases (questions,)` are
    those of `metrics.cases_of`; where all questions agree the limits are exact ones (docs/decisions.md).

    >>> import numpy as np
    >>> figures = accuracy([np.array([1.0, 2.0]), np.array([3.0, 1.0])], [0, 0], cases=[0, 1])
    >>> figures["accuracy"]["value"], figures["ties"]
    (50.0, 0)
    """
    import numpy as np

    from hindi_babylm.metrics import agreement_limits, bootstrap_interval, tabulated

    points = np.asarray([points_of(own, answer) for own, answer in zip(scores, answers, strict=True)])
    one = np.zeros(len(points), dtype=int)
    right, counts = tabulated(cases, one, points), tabulated(cases, one, np.ones(len(points)))
    low, high = agreement_limits(right, counts) or bootstrap_interval(right[:, 0], counts[:, 0], seed=seed)
    return {
        "accuracy": {"value": 100 * float(points.mean()), "low": 100 * low, "high": 100 * high},
        "ties": sum(int(_lowest(own).sum() > 1) for own in scores),
    }


def points_of(scores: "np.ndarray", answer: int) -> float:
    """Return the share of `answer` in the lowest of the `scores (choices,)`: equal ones share the point.

    >>> import numpy as np
    >>> points_of(np.array([2.0, 1.0, 1.0]), 1), points_of(np.array([2.0, 1.0, 1.0]), 0)
    (0.5, 0.0)
    """
    lowest = _lowest(scores)
    return float(lowest[answer] / lowest.sum())


def _lowest(scores: "np.ndarray") -> "np.ndarray":
    """Tell which of the `scores (choices,)` are the lowest; sums that differ by the order of adding are equal."""
    import numpy as np

    return np.asarray(np.isclose(scores, scores.min(), rtol=1e-9, atol=0))


def _scored(question: Question) -> Sequence[str]:
    """Return the texts whose bytes divide the NLL: the whole ones of a cloze, else the choices."""
    return question.texts if question.is_cloze else question.choices


def _shared(sequences: "Sequence[np.ndarray]") -> int:
    """Return how many tokens all `sequences` begin with in common."""
    return sum(1 for _ in itertools.takewhile(lambda ids: len(set(ids)) == 1, zip(*sequences, strict=False)))


def _question(row: Any) -> Question:
    """Return the question of a line; raise ValueError for what it lacks."""
    missing = [name for name in ("context", "choices", "answer") if not isinstance(row, dict) or name not in row]
    if missing:
        raise ValueError(f"it lacks {', '.join(missing)}")
    context, choices, answer = row["context"], row["choices"], row["answer"]
    if not isinstance(context, str):
        raise ValueError(f"context = {json.dumps(context, ensure_ascii=False)}: expected text")
    if not isinstance(choices, list) or not all(isinstance(choice, str) and choice.strip() for choice in choices):
        raise ValueError(f"choices = {json.dumps(choices, ensure_ascii=False)}: expected a list of texts")
    texts = tuple(normalize(choice).strip() for choice in choices)
    if len(set(texts)) < max(2, len(texts)):
        raise ValueError(f"choices = {json.dumps(choices, ensure_ascii=False)}: expected two or more that differ")
    if isinstance(answer, str) and normalize(answer).strip() in texts:
        answer = texts.index(normalize(answer).strip())
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < len(texts):
        told = f"one of the choices, or its index from 0 to {len(texts) - 1}"
        raise ValueError(f"answer = {json.dumps(answer, ensure_ascii=False)}: expected {told}")
    context = normalize(context)
    if len(_BLANK.findall(context)) > 1:
        raise ValueError("context has several blanks (___): expected at most one")
    return Question(context, texts, answer)
