"""Multiple choice and cloze, against a loop that predicts one token at a time."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hindi_babylm.evaluation.multiple_choice import (
    Question,
    accuracy,
    encode_questions,
    load_questions,
    points_of,
    question_texts,
    score_questions,
)
from hindi_babylm.evaluation.ngram import Floors
from hindi_babylm.evaluation.scorer import Scorer
from hindi_babylm.evaluation.tasks import task_texts
from hindi_babylm.modeling import build_model
from hindi_babylm.recipe.parsing import parse_recipe
from hindi_babylm.run import main, run
from hindi_babylm.storage import UserError, read_json
from hindi_babylm.tokenization.training import train_tokenizer
from tests.conftest import TINY, WORDS, hindi_sentences, tiny_recipe

BLOCK = 32
QUESTIONS = [
    Question("राम घर", ("गया", "गई", "किताब पढ़ी"), answer=0),
    Question("सीता ने फल", ("खाया", "खाई"), answer=1),
    Question("", ("नदी में पानी है", "नदी ने पानी है"), answer=0),
    Question("राजा ने कहा:\n", ("लड़का अच्छा है ।", "नहीं", "क्षत्रिय", "हैं"), answer=3),
    Question("लड़का ___ जाता है ।", ("घर", "घर की", "विद्यार्थी"), answer=0),
    Question("_____ ने फल खाया", ("राम", "सूरज और चाँद"), answer=1),
]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """Return a tokenizer that cuts most words into parts."""
    return train_tokenizer([" ".join(sorted(set("".join(WORDS)))), *WORDS[:9]], vocab_size=512)


def scorer_of(tokenizer: Any, architecture: str, *, zero: bool = False) -> Scorer:
    """Return an untrained model whose probabilities differ much, or not at all."""
    size = {**TINY[architecture], "initializer_range": 0.5}
    settings: Any = {"tokenizer": tokenizer, "block_size": BLOCK, "model_config": size}
    model = build_model(architecture=architecture, dropout=0.0, **settings).eval()
    if zero:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
    return Scorer.of(model, tokenizer, block_size=BLOCK)


def ids_of(tokenizer: Any, text: str) -> list[int]:
    """Return the tokens of a text as the tokenizer's own call gives them."""
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def given_of(tokenizer: Any, question: Question) -> int:
    """Return how many tokens the context alone and each joined text have in common, counted one by one."""
    if "___" in question.context:
        return 0
    sequences = [ids_of(tokenizer, text) for text in (question.context, *question.texts)]
    count = 0
    while all(len(ids) > count and ids[count] == sequences[0][count] for ids in sequences):
        count += 1
    return count


def plain_nll(scorer: Scorer, text: str, given: int) -> float:
    """Sum the NLL of a text's tokens past `given`, each from a forward pass of its own."""
    eos = scorer.tokenizer.eos_token_id
    ids = [eos, *ids_of(scorer.tokenizer, text)]
    total = 0.0
    for place in range(given + 1, len(ids)):
        with torch.no_grad():
            logits = scorer.model(torch.tensor([ids[:place]])).logits[0, -1]
        total -= torch.log_softmax(logits.double(), dim=-1)[ids[place]].item()
    return total


def plain_pseudo_nll(scorer: Scorer, text: str, given: int) -> float:
    """Sum the NLL of a text's tokens past `given`, each masked with the later tokens of its word."""
    tokenizer, eos = scorer.tokenizer, scorer.tokenizer.eos_token_id
    ids = ids_of(tokenizer, text)
    # A space begins the next word.
    begun = [len((tokenizer.decode(ids[: end + 1]) + "x").split()) for end in range(len(ids))]
    row = [eos, *ids, eos]
    total = 0.0
    for place in range(given + 1, len(row) - 1):
        changed = list(row)
        for later in range(place, len(row) - 1):
            if begun[later - 1] == begun[place - 1]:
                changed[later] = tokenizer.mask_token_id
        with torch.no_grad():
            logits = scorer.model(torch.tensor([changed])).logits[0, place]
        total -= torch.log_softmax(logits.double(), dim=-1)[row[place]].item()
    return total


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "deberta-v2"])
def test_scores_equal_one_at_a_time(tokenizer: Any, architecture: str) -> None:
    """The NLL of every choice is that of a loop over single tokens, given the context or over the whole text."""
    scorer = scorer_of(tokenizer, architecture)
    questions = QUESTIONS
    plain = plain_nll if architecture != "deberta-v2" else plain_pseudo_nll
    figures, items = score_questions(scorer, questions)
    points, per_byte = [], []
    for question, item in zip(questions, items, strict=True):
        nll = [plain(scorer, text, given_of(tokenizer, question)) for text in question.texts]
        assert item["nll"] == pytest.approx(nll, rel=1e-5)
        scored = question.texts if "___" in question.context else question.choices
        assert item["bytes"] == [len(text.encode()) for text in scored]
        points.append(nll.index(min(nll)) == question.answer)
        each = [value / size for value, size in zip(nll, item["bytes"], strict=True)]
        per_byte.append(each.index(min(each)) == question.answer)
        assert item["points"] == points[-1]
    assert figures["accuracy"]["value"] == pytest.approx(100 * np.mean(points))
    assert figures["per_byte"]["accuracy"]["value"] == pytest.approx(100 * np.mean(per_byte))
    assert figures["accuracy"]["low"] <= figures["accuracy"]["value"] <= figures["accuracy"]["high"]
    assert (figures["questions"], figures["ties"]) == (len(questions), 0)


def test_the_context_is_given_where_it_can_be(tokenizer: Any) -> None:
    """Contexts that end with a word are given whole, at a blank nothing is, and less where a token spans its end."""
    _, given = encode_questions(tokenizer, QUESTIONS, room=BLOCK)
    per_question = [given[index] for index in (0, 3, 5, 7, 11, 14)]
    whole = [len(ids_of(tokenizer, question.context)) for question in QUESTIONS[:4]]
    assert per_question == [*whole, 0, 0]
    # The space at the end of the context belongs to the next word's token, where there is one.
    merged = train_tokenizer(["घर में"] * 20, vocab_size=512, algorithm="bpe_bytelevel")
    spanning = Question("घर ", ("में राजा", "में नदी"), answer=0)
    _, found = encode_questions(merged, [spanning], room=BLOCK)
    assert found == [given_of(merged, spanning)] * 2
    assert found[0] < len(ids_of(merged, spanning.context))


def test_whole_and_conditional_scores_choose_alike(tokenizer: Any) -> None:
    """A blank at the end of a context adds the same NLL of the context to each choice."""
    scorer = scorer_of(tokenizer, "llama")
    behind = Question("राम घर", ("गया", "गई", "किताब"), answer=0)
    blank = Question("राम घर ___", behind.choices, answer=0)
    _, (one, other) = score_questions(scorer, [behind, blank])
    differences = np.asarray(other["nll"]) - np.asarray(one["nll"])
    assert differences == pytest.approx(plain_nll(scorer, "राम घर", 0), rel=1e-5)
    assert one["points"] == other["points"]


@pytest.mark.parametrize("architecture", ["gpt2", "deberta-v2"])
def test_a_constant_model_is_exactly_at_chance(tokenizer: Any, architecture: str) -> None:
    """Where all choices have as many tokens, a model without preferences shares every point among them."""
    words = [word for word in WORDS if len(ids_of(tokenizer, "ने " + word)) == 5]
    questions = [
        Question("राम ने", tuple(words[start : start + count]), answer=start % count)
        for count in (2, 3, 4)
        for start in range(len(words) - count)
    ]
    assert len(questions) > 20
    figures, items = score_questions(scorer_of(tokenizer, architecture, zero=True), questions)
    assert figures["accuracy"]["value"] == figures["chance"]
    assert figures["chance"] == pytest.approx(100 * np.mean([1 / len(question.choices) for question in questions]))
    assert figures["ties"] == len(questions)
    assert {item["points"] for item in items} == {1 / 2, 1 / 3, 1 / 4}


def test_sums_that_are_equal_but_for_the_order_of_adding_are_ties() -> None:
    """Choices share a point whatever order their numbers were added in, and a millionth more is none."""
    sums = np.array([0.1 + 0.2 + 0.3, 0.3 + 0.2 + 0.1])
    assert [points_of(sums, answer) for answer in (0, 1)] == [0.5, 0.5]
    assert accuracy([sums, np.array([1.0, 1.0 + 1e-6])], [0, 0], cases=[0, 1])["ties"] == 1


def test_questions_of_one_context_are_drawn_together() -> None:
    """The interval is that of whole contexts, drawn in a plain loop, and wider than that of questions that agree."""
    draw = np.random.default_rng(0)
    points = np.repeat(draw.random(30) < 0.6, 3)
    scores = [np.array([0.0, 1.0]) if point else np.array([1.0, 0.0]) for point in points]
    found = accuracy(scores, [0] * 90, cases=np.repeat(np.arange(30), 3).tolist(), seed=0)["accuracy"]
    samples = []
    for _ in range(4000):
        chosen = [question for case in draw.integers(30, size=30) for question in range(3 * case, 3 * case + 3)]
        samples.append(100 * np.mean(points[chosen]))
    low, high = np.quantile(samples, [0.025, 0.975])
    assert (found["low"], found["high"]) == pytest.approx((low, high), abs=3.4)  # a context is 3.3 points
    alone = accuracy(scores, [0] * 90, cases=list(range(90)), seed=0)["accuracy"]
    assert found["high"] - found["low"] > 1.4 * (alone["high"] - alone["low"])


def test_questions_that_all_agree_have_exact_limits() -> None:
    """All right or all wrong, an accuracy has the limits of Clopper and Pearson over its contexts."""
    scores = [np.array([0.0, 1.0])] * 12
    cases = [number // 2 for number in range(12)]
    least = 100 * 0.025 ** (1 / 6)
    assert accuracy(scores, [0] * 12, cases=cases)["accuracy"] == {
        "value": 100,
        "low": pytest.approx(least),
        "high": 100,
    }
    wrong = accuracy(scores, [1] * 12, cases=cases)["accuracy"]
    assert wrong == {"value": 0, "low": 0, "high": pytest.approx(100 - least)}


def test_the_trigram_stands_beside(tokenizer: Any) -> None:
    """The floor knows the completion that its training text has, and its score is that of the choice alone."""
    tokens = np.asarray([*ids_of(tokenizer, "राम घर गया"), tokenizer.eos_token_id] * 9)
    floors = Floors(tokens, vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id)
    figures, _ = score_questions(scorer_of(tokenizer, "gpt2"), QUESTIONS[:1], floors=floors)
    assert figures["trigram"]["accuracy"]["value"] == 100


def test_a_long_question_is_refused(tokenizer: Any) -> None:
    """A text that does not fit is an error that says which, and no truncation; one that just fits is scored."""
    room = BLOCK - 2
    text = hindi_sentences(9, seed=0)
    while len(ids_of(tokenizer, text)) > room:
        text = text[:-1]
    fitting = Question("", (text, "घर"), answer=0)
    assert len(ids_of(tokenizer, fitting.choices[0])) == room
    for architecture in ("gpt2", "deberta-v2"):
        score_questions(scorer_of(tokenizer, architecture), [fitting])
    longer = Question("न", fitting.choices, answer=0)
    tokens = len(ids_of(tokenizer, longer.texts[0]))
    with pytest.raises(UserError, match=rf"question 2 has {tokens} tokens, more than the {tokens - 1} that fit"):
        encode_questions(tokenizer, [fitting, longer], room=tokens - 1)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", r"line 2 is no question: Expecting"),
        ([1], r"it lacks context, choices, answer"),
        ({"context": "क", "choices": ["ख", "ग"]}, r"it lacks answer"),
        ({"context": 1, "choices": ["ख", "ग"], "answer": 0}, r"context = 1: expected text"),
        ({"context": "क", "choices": "खग", "answer": 0}, r'choices = "खग": expected a list of texts'),
        ({"context": "क", "choices": ["ख", " "], "answer": 0}, r"expected a list of texts"),
        ({"context": "क", "choices": ["ख"], "answer": 0}, r"expected two or more that differ"),
        ({"context": "क", "choices": ["\u0958", "\u0915\u093c"], "answer": 0}, r"expected two or more that differ"),
        ({"context": "क", "choices": ["ख", "ग"], "answer": 2}, r"answer = 2: expected .* index from 0 to 1"),
        ({"context": "क", "choices": ["ख", "ग"], "answer": -1}, r"answer = -1"),
        ({"context": "क", "choices": ["ख", "ग"], "answer": True}, r"answer = true"),
        ({"context": "क", "choices": ["ख", "ग"], "answer": "घ"}, r'answer = "घ"'),
        ({"context": "___ क ___", "choices": ["ख", "ग"], "answer": 0}, r"several blanks"),
    ],
)
def test_what_is_no_question_is_refused(tmp_path: Path, row: Any, message: str) -> None:
    """A line that is no question is refused in one line that says where and why."""
    path = tmp_path / "questions.jsonl"
    good = json.dumps({"context": "क", "choices": ["ख", "ग"], "answer": 0})
    path.write_text("\n".join([good, row if isinstance(row, str) else json.dumps(row)]), encoding="utf-8")
    with pytest.raises(
        UserError, match=rf"^evaluation: .*questions\.jsonl: line 2 is no question: .*{message}|{message}"
    ):
        load_questions(path)


def test_files_are_read(tmp_path: Path) -> None:
    """The answer may be the text of a choice or its index; blank lines and a byte order mark do not count."""
    path = tmp_path / "questions.jsonl"
    rows = [
        {"context": "राम", "choices": [" गया", "गई"], "answer": "गया", "subject": "gender"},
        {"context": "___ है", "choices": ["2", "0"], "answer": "0"},
        {"context": "", "choices": ["क", "ख"], "answer": 1},
    ]
    path.write_text("\ufeff" + "\r\n\r\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    questions = load_questions(path)
    assert [question.answer for question in questions] == [0, 1, 1]
    assert question_texts(questions) == ["राम गया", "राम गई", "2 है", "0 है", "क", "ख"]
    path.write_text("\n", encoding="utf-8")
    with pytest.raises(UserError, match="holds no question"):
        load_questions(path)
    with pytest.raises(UserError, match="cannot read"):
        load_questions(tmp_path / "missing.jsonl")


def test_long_texts_among_short_ones_are_scored_alike(tokenizer: Any) -> None:
    """A question's scores do not hang on what it is batched with."""
    scorer = scorer_of(tokenizer, "llama")
    many = [Question(hindi_sentences(1, seed=seed)[:12], ("घर", "नदी में"), answer=0) for seed in range(12)]
    _, together = score_questions(scorer, many)
    for question, item in zip(many, together, strict=True):
        _, (alone,) = score_questions(scorer, [question])
        assert alone["nll"] == pytest.approx(item["nll"], rel=1e-5)


def test_a_run_answers_questions(tmp_path: Path, corpus_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A recipe that names a file of questions has its figures, a row each in items/, and both in table and report."""
    path = tmp_path / "school.jsonl"
    rows = [
        {"context": "राम घर", "choices": ["गया है", "गई"], "answer": 0},
        {"context": "", "choices": ["क", "ख", "ग"], "answer": 2},
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    recipe = tiny_recipe(corpus_file, max_steps=2, output_dir=str(tmp_path / "run"))
    recipe["evaluation"]["tasks"] = [str(path)]
    (tmp_path / "tiny.json").write_text(json.dumps(recipe), encoding="utf-8")
    main([str(tmp_path / "tiny.json")])
    score = read_json(tmp_path / "run" / "results.json")["multiple_choice"]["school"]
    items = [json.loads(line) for line in (tmp_path / "run/items/school.jsonl").read_text("utf-8").splitlines()]
    assert [item["choices"] for item in items] == [row["choices"] for row in rows]
    assert score["accuracy"]["value"] == pytest.approx(50 * sum(item["points"] for item in items))
    assert (score["questions"], score["chance"]) == (2, pytest.approx(100 * 5 / 12))
    assert "% of 2 (chance 41.7)" in capsys.readouterr().out
    assert ">Multiple choice</h2>" in (tmp_path / "run/report.html").read_text("utf-8")


def test_a_question_is_checked_before_the_training(tmp_path: Path, corpus_file: Path) -> None:
    """A question that does not fit is refused with the place in the recipe, and no text of a question is trained on."""
    path = tmp_path / "school.jsonl"
    path.write_text(json.dumps({"context": "घर " * 40, "choices": ["क", "ख"], "answer": 0}), encoding="utf-8")
    recipe = tiny_recipe(corpus_file, max_steps=2, output_dir=str(tmp_path / "run"))
    recipe["evaluation"]["tasks"] = [str(path)]
    (tmp_path / "tiny.json").write_text(json.dumps(recipe), encoding="utf-8")
    with pytest.raises(UserError, match=r"evaluation\.tasks: question 1 has \d+ tokens, more than the 32 that fit"):
        run(parse_recipe(tmp_path / "tiny.json"))
    assert not (tmp_path / "run" / "final_model").exists()
    assert task_texts(str(path)) == ["घर " * 40 + "क", "घर " * 40 + "ख"]
