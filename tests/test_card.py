"""The model card: what the hub reads of it, what a person does, and what it must not say."""

import json
import lzma
import re
import shutil
from pathlib import Path
from typing import Any, cast

import pytest
from huggingface_hub import EvalResult, ModelCard

from hindi_babylm.recipe.parsing import parse_recipe
from hindi_babylm.reporting.card import cell, model_card, write_card
from hindi_babylm.reporting.licences import BUNDLED, Source, model_licence, sources_of
from hindi_babylm.reporting.privacy import is_path, leak, machine_places, public_names, scrubbed, secrets
from hindi_babylm.reporting.report import figure
from hindi_babylm.run import main
from hindi_babylm.storage import RunFolder, read_json, what_counts, write_json
from tests.conftest import tiny_recipe
from tests.fake_hub import FakeHub, card_errors

INTERVAL = {"value": 85.25, "low": 82.0, "high": 88.75}


def metadata(card: str) -> dict[str, Any]:
    """Return the metadata of a card as huggingface_hub reads them."""
    data: dict[str, Any] = ModelCard(card).data.to_dict()
    return data


def test_every_run_has_a_card_that_the_hub_understands(finished: RunFolder) -> None:
    """huggingface_hub reads the card back whole, with language, library, task and results."""
    card = ModelCard.load(finished.card)
    assert str(card) == finished.card.read_text(encoding="utf-8")
    data = card.data.to_dict()
    assert (data["language"], data["library_name"], data["pipeline_tag"]) == ("hi", "transformers", "text-generation")
    assert "license" not in data
    assert "datasets" not in data
    assert "base_model" not in data
    assert card_errors(data) == []
    test = read_json(finished.results)["test"]
    found = {entry.metric_type: entry for entry in cast(list[EvalResult], card.data["eval_results"])}
    assert set(found) == {
        *("bits_per_byte", "bits_per_character", "bits_per_akshara", "word_perplexity", "token_perplexity")
    }
    for name, entry in found.items():
        assert entry.metric_value == pytest.approx(test[name]["value"], abs=1e-6)
        interval = figure(test[name], 1 if name.endswith("perplexity") else 3).split(" ", 1)[1]
        assert str(entry.metric_name).endswith(f", 95 % interval {interval}")


def test_the_hub_validates_the_card(folder: RunFolder, hub: FakeHub) -> None:
    """The hub's validator accepts the card, and refuses one with a licence that is none."""
    ModelCard(model_card(folder)).validate()
    assert [(request.path, request.status) for request in hub.requests] == [("/api/validate-yaml", 200)]
    wrong = ModelCard(model_card(folder))
    wrong.data["license"] = "Whatever You Like"
    with pytest.raises(ValueError, match="license"):
        wrong.validate()


def test_the_card_tells_the_figures_of_the_run(folder: RunFolder) -> None:
    """Ledger, results with intervals, floors, tokenizer, hyperparameters, versions and milestones are the run's own."""
    corpus, results = read_json(folder.corpus), read_json(folder.results)
    corpus["dropped"]["duplicate"] = {"documents": 3, "words": 1234, "bytes": 5678, "examples": [{"text": "गुप्त"}]}
    corpus["changed"]["spaces"] = {"documents": 0, "words": 11, "bytes": 22, "touched": 4, "examples": []}
    write_json(folder.corpus, corpus)
    way = {"accuracy": 70.5, "pairs": 31, "ties": 0}
    results["minimal_pairs"]["my pairs (2)"] = {"macro": INTERVAL, "phenomena": {}}
    results["minimal_pairs"]["suite"] = {
        "macro": INTERVAL,
        "phenomena": {"number": {"accuracy": 56.6, "pairs": 53, "ties": 1}},
        "per_byte": {"macro": {"value": 83.1, "low": 80.0, "high": 86.2}},
        "length_only": {"macro": {"value": 52.4, "low": 49.0, "high": 55.6}},
        "trigram": {"macro": {"value": 86.1, "low": 83.1, "high": 89.2}},
        "halves": {"number": {"है / हैं": {"है -> हैं": way, "हैं -> है": {**way, "accuracy": 12.5}, "minimum": 12.5}}},
    }
    asked = {"accuracy": {"value": 41.0, "low": 30.0, "high": 52.0}, "ties": 0}
    results["multiple_choice"] = {
        "choices": {
            **asked,
            "chance": 25.0,
            "questions": 80,
            "per_byte": {"accuracy": {"value": 42.0, "low": 31.0, "high": 53.0}, "ties": 0},
            "trigram": {"accuracy": {"value": 33.0, "low": 23.0, "high": 43.0}, "ties": 0},
        }
    }
    results["fine_tuning"] = {
        "topics": {
            "macro_f1": {"value": 61.5, "low": 55.0, "high": 68.0},
            "accuracy": {"value": 66.5, "low": 60.0, "high": 73.0},
            "seeds": [{"seed": 0}, {"seed": 1}],
            "bag_of_words": {"macro_f1": {"value": 64.5, "low": 58.0, "high": 71.0}},
            "majority": {"macro_f1": {"value": 5.5, "low": 4.0, "high": 7.0}},
        }
    }
    write_json(folder.results, results)
    card = model_card(folder)
    kept = corpus["kept"]["train"]["news"]
    test, environment = results["test"], read_json(folder.environment)
    for told in (
        f"| news | train | {kept['documents']} | {kept['words']:,} | {kept['bytes']:,} | {kept['tokens']:,} |",
        f"Budget: {corpus['budget']['used']:,} words kept ({corpus['budget']['bytes']:,} bytes)",
        f"The training saw {results['training']['words_seen']:,.0f} words",
        "| duplicate | 3 | | 1,234 | 5,678 |",
        "| spaces | | 4 | 11 | 22 |",
        f"| held-out test split | bits a byte | {figure(test['bits_per_byte'])} |",
        figure(test["unigram_bits_per_byte"]),
        figure(test["trigram_bits_per_byte"]),
        "| suite | % of minimal pairs, macro average, chance 50 | 85.2 [82.0, 88.8] |",
        "| suite | % of minimal pairs of a trigram of the same tokens: a floor | 86.1 [83.1, 89.2] |",
        "| suite | % of minimal pairs, by NLL a byte | 83.1 [80.0, 86.2] |",
        "| suite | % of minimal pairs of always taking the sentence of fewer tokens | 52.4 [49.0, 55.6] |",
        "| suite | number | 56.6 | 53 | 1 |",
        "| suite | number | है -> हैं | 70.5 | 31 | 12.5 |",
        "| suite | number | हैं -> है | 12.5 | 31 | 12.5 |",
        "| choices | % of questions, multiple choice, chance 25.0 | 41.0 [30.0, 52.0] |",
        "| choices | % of questions, by NLL a byte | 42.0 [31.0, 53.0] |",
        "| choices | % of questions of a trigram of the same tokens: a floor | 33.0 [23.0, 43.0] |",
        "| topics | macro-F1 after fine-tuning, mean of 2 seeds, % | 61.5 [55.0, 68.0] |",
        "| topics | accuracy after fine-tuning, mean of 2 seeds, % | 66.5 [60.0, 73.0] |",
        "| topics | macro-F1 of a bag of words, % | 64.5 [58.0, 71.0] |",
        "| topics | macro-F1 of the most frequent label, % | 5.5 [4.0, 7.0] |",
        "| batch | 8 blocks of 32 tokens |",
        f"torch {environment['packages']['torch']}",
        f"commit {environment['commit']}",
        "(seed 7)",
        f"| 300 | {results['milestones'][0]['words_seen']:,.0f} | {results['milestones'][0]['step']} |",
        environment["sha256"]["tokenizer/tokenizer.json"],
    ):
        assert told in card, told
    assert "गुप्त" not in card, "examples of what was dropped are not published"
    share = test["bits_per_byte"]["value"] / test["trigram_bits_per_byte"]["value"] - 1
    assert f"the model is {100 * abs(share):.1f} % {'ABOVE' if share > 0 else 'below'} it" in card
    entries = cast(list[EvalResult], ModelCard(card).data["eval_results"])
    suite = [entry for entry in entries if entry.dataset_name == "suite"]
    assert [(entry.metric_type, entry.metric_value) for entry in suite] == [("accuracy", 85.25)]
    tasks = {entry.dataset_name: entry.task_type for entry in entries}
    assert (tasks["suite"], tasks["choices"], tasks["topics"]) == (
        "text-generation",
        "multiple-choice",
        "text-classification",
    )
    assert card_errors(metadata(card)) == []


def test_the_recipe_of_the_card_repeats_the_run(folder: RunFolder, tmp_path: Path) -> None:
    """The JSON in the card is a recipe that resolves to the run's own, but for folders and publishing."""
    recipe = read_json(folder.recipe)
    recipe["reporting"]["hub_model_id"] = "someone/secret-name"
    write_json(folder.recipe, recipe)
    (block,) = re.findall(r"```json\n(.*?)^```", model_card(folder), re.M | re.S)
    (tmp_path / "recipe.json").write_text(block, encoding="utf-8")
    resolved = what_counts(parse_recipe(tmp_path / "recipe.json").resolved())
    own = what_counts(recipe)
    assert resolved["corpus"].pop("sources") == [{"path": "corpus.jsonl"}]
    own["corpus"].pop("sources")
    assert resolved == own
    assert "secret-name" not in model_card(folder)


@pytest.mark.parametrize("published", [False, True])
def test_the_example_runs_as_written(
    published: bool, folder: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The Python of the card opens the model where the card says that it lies, and prints text that begins as asked."""
    if published:  # the id of the repository, here a folder of that name
        shutil.copytree(folder.final_model, folder.path / "someone" / "tiny")
    monkeypatch.chdir(folder.path)
    card = model_card(folder, hub_model_id="someone/tiny" if published else None)
    (block,) = re.findall(r"```python\n(.*?)^```", card, re.M | re.S)
    exec(compile(block, "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith("राम घर में")


@pytest.mark.slow
def test_the_card_of_a_masked_model(tmp_path: Path, corpus_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A masked model's card has the task fill-mask, pseudo figures under their names, no floors, and its example."""
    recipe = tiny_recipe(corpus_file, "deberta-v2", output_dir=str(tmp_path / "run"), milestones=[300])
    (tmp_path / "tiny.json").write_text(json.dumps(recipe), encoding="utf-8")
    main([str(tmp_path / "tiny.json")])
    folder = RunFolder(tmp_path / "run")
    card = folder.card.read_text(encoding="utf-8")
    data = metadata(card)
    assert data["pipeline_tag"] == "fill-mask"
    assert card_errors(data) == []
    metrics = {metric["type"] for result in data["model-index"][0]["results"] for metric in result["metrics"]}
    assert metrics
    assert all(name.startswith("pseudo_") for name in metrics)
    assert "a floor" not in card
    assert "tokens were scored" in card
    (block,) = re.findall(r"```python\n(.*?)^```", card, re.M | re.S)
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder.path)
        exec(compile(block, "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith("[")


def test_the_card_names_no_place_of_the_machine(folder: RunFolder, tmp_path: Path) -> None:
    """Local sources, the tokenizer and a deepspeed file are told by their last name, in the card and in its recipe."""
    recipe, corpus = read_json(folder.recipe), read_json(folder.corpus)
    spots = ["/data/ram/private/texts.jsonl", "../ram/more/texts.jsonl", str(tmp_path / "lists")]
    recipe["corpus"]["sources"] = [*({"path": spot} for spot in spots), {"hub_id": "/mnt/ram/dataset"}]
    recipe["evaluation"]["tasks"] = ["ram/pairs.tsv"]
    recipe["tokenizer"]["tokenizer"] = "/data/ram/tokenizers/mine"
    recipe["training"] |= {"deepspeed": "/data/ram/ds.json", "wandb_notes": "for Sita", "run_name": "of Ram"}
    corpus["kept"]["train"][spots[0]] = corpus["kept"]["train"].pop("news")
    write_json(folder.recipe, recipe)
    write_json(folder.corpus, corpus)
    card = model_card(folder)
    for hidden in ("/home/", "ram/", "Sita", "of Ram", str(tmp_path), str(Path.home()), "..", "SECRET"):
        assert hidden not in card.replace("...", ""), hidden
    for told in ("| texts.jsonl | local", "| texts.jsonl (2) | local", "| texts.jsonl | train |", "tokens, from mine"):
        assert told in card
    assert "| dataset | local files, which are not public | not stated |" in card
    assert '"pairs.tsv"' in card
    assert "datasets" not in metadata(card), "a folder laid out like a dataset is none of the hub"


def test_names_are_no_markup(folder: RunFolder) -> None:
    """A source cannot break a table of the card or put HTML into it."""
    corpus = read_json(folder.corpus)
    corpus["kept"]["train"]["a|b\n<script>x</script> [y](z)"] = corpus["kept"]["train"].pop("news")
    write_json(folder.corpus, corpus)
    card = model_card(folder)
    assert "<script>" not in card
    assert "| a\\|b &lt;script>x&lt;/script> \\[y\\](z) | train |" in card
    assert cell("क") == "क"


@pytest.mark.parametrize(
    ("sources", "licence", "datasets"),
    [
        ([{"bundled": "all"}], "cc-by-sa-4.0", None),
        ([{"bundled": "premchand_stories"}], None, None),
        ([{"bundled": "common_voice_sentences"}], "cc0-1.0", None),
        ([{"hub_id": "someone/texts", "licence": "ODC-BY"}], "odc-by", ["someone/texts"]),
        ([{"hub_id": "someone/texts"}, {"bundled": "all"}], None, ["someone/texts"]),
        ([{"hub_id": "a/b", "licence": "odc-by"}, {"hub_id": "c/d", "licence": "CC BY 4.0"}], None, ["a/b", "c/d"]),
        ([{"path": "x.txt", "licence": "my own"}], None, None),
    ],
)
def test_the_licence_follows_from_those_of_the_sources(
    sources: list[dict[str, Any]], licence: str | None, datasets: list[str] | None, folder: RunFolder
) -> None:
    """The metadata have the strictest licence where there is one, else none and a sentence, and the ids of datasets."""
    recipe = read_json(folder.recipe)
    recipe["corpus"]["sources"] = sources
    write_json(folder.recipe, recipe)
    card = model_card(folder)
    data = metadata(card)
    assert data.get("license") == licence
    assert data.get("datasets") == datasets
    assert card_errors(data) == []
    assert ("No licence is stated above" in card) == (licence is None)
    for source in sources:
        if "licence" in source:
            assert f"| {source['licence']} |" in card
        if "hub_id" in source:
            assert f"https://huggingface.co/datasets/{source['hub_id']}" in card


def test_licences_form_one_chain_only() -> None:
    """CC0, CC BY and CC BY-SA contain each other; of equal ones there is one; with an unknown there is none."""

    def licence(*identifiers: str) -> str | None:
        return model_licence([Source("x", "", "", (name,) if name else ()) for name in identifiers])

    assert licence("cc0-1.0", "cc-by-4.0") == "cc-by-4.0"
    assert licence("cc-by-sa-3.0", "cc-by-4.0") == "cc-by-sa-4.0"
    assert licence("cc-by-sa-3.0", "cc-by-sa-3.0") == "cc-by-sa-3.0"
    assert licence("cc-by-nc-4.0", "cc-by-4.0") is None
    assert licence("cc-by-4.0", "") is None
    assert licence() is None


def test_the_bundled_licences_are_those_of_the_files() -> None:
    """What a card says of a bundled source is what its documents carry in their column `licence`."""
    folder = Path(__file__).parent.parent / "hindi_babylm" / "data" / "corpus"
    for path in folder.glob("*.jsonl.xz"):
        with lzma.open(path, "rt", encoding="utf-8") as file:
            carried = {json.loads(line)["licence"] for line in file}
        told = BUNDLED[path.name.split(".")[0]]
        found, said = (
            set(re.findall(r"cc0|cc by sa|cc by|public domain in india", text.lower().replace("-", " ")))
            for text in (" ".join(carried), told.licence)
        )
        assert found == said
        assert said
    assert {source.name for source in sources_of({"corpus": {"sources": [{"bundled": "all"}]}}, {})} == set(BUNDLED)


def test_paths_are_told_from_text() -> None:
    """Roots, homes, parent folders and drives are paths; names, ids, fractions and Hindi are not."""
    assert all(map(is_path, ["/home/x", "~/x", "~ram/x", "../x", "C:\\x", "\\\\host\\x"]))
    assert not any(map(is_path, ["a/b", "runs/base", "और/या", "/ या", "1/2", "", "cc-by-4.0", "... और"]))
    names = public_names({"corpus": {"sources": [{"path": "/a/x"}]}, "tokenizer": {"tokenizer": "/b/x"}})
    assert names == {"/a/x": "x", "/b/x": "x (2)"}
    assert scrubbed(["/a/x", {"/c/y": 1, "y": 2}, 3], names, []) == ["x", {"y": 1, "y (2)": 2}, 3]


def test_leaks_are_whole_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder is found where it stands as a path, not inside of a longer name; short values are no secrets."""
    assert leak("see /data/x", ["/data"]) == "/data"
    assert leak('{"a": "/data"}', ["/data"]) == "/data"
    assert leak("hindi_babylm/data/corpus /database", ["/data"]) is None
    assert str(Path.home()) in machine_places(tmp_path)
    assert "/" not in machine_places(tmp_path)
    monkeypatch.setenv("MY_API_KEY", "0123456789")
    monkeypatch.setenv("SHORT_TOKEN", "x")
    assert secrets("hf_abc")["0123456789"] == "MY_API_KEY"
    assert secrets("hf_abc")["hf_abc"] == "the token of the hub"
    assert "x" not in secrets(None)


def test_a_finished_run_without_a_card_gets_one(folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    """The command that finds a finished run writes a card that is missing, and changes no other."""
    before = folder.card.read_text(encoding="utf-8")
    folder.card.unlink()
    words = [str(folder.recipe), "--output_dir", str(folder.path)]
    main(words)
    assert folder.card.read_text(encoding="utf-8") == before
    folder.card.write_text("mine", encoding="utf-8")
    main(words)
    assert folder.card.read_text(encoding="utf-8") == "mine"
    assert write_card(folder) == folder.card
