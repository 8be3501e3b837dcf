import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hindi_babylm.evaluation.tasks import TASKS
from hindi_babylm.recipe import sections
from hindi_babylm.recipe.listing import run_help, training_help
from hindi_babylm.recipe.parsing import parse_recipe
from hindi_babylm.recipe.refused import REFUSED
from hindi_babylm.recipe.sections import SECTIONS, TRAINING_CHECKS, Recipe
from hindi_babylm.run import main

SHIPPED = Path(__file__).parent.parent / "recipes"


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, as one process that no launcher started."""
    monkeypatch.chdir(tmp_path)
    for name in ("WORLD_SIZE", "ACCELERATE_MIXED_PRECISION", "LOCAL_RANK", "RANK"):
        monkeypatch.delenv(name, raising=False)


def parse(recipe: Any, *flags: str) -> Recipe:
    """Write a recipe to `r.json` in the working folder and parse it with flags."""
    text = recipe if isinstance(recipe, str) else json.dumps(recipe)
    Path("r.json").write_text(text, encoding="utf-8")
    return parse_recipe("r.json", flags)


def test_precedence_is_default_then_recipe_then_flag() -> None:
    """A recipe overrides a default and a flag overrides both; what neither names keeps its default."""
    recipe = {"training": {"learning_rate": 0.1, "weight_decay": 0.2}, "model": {"block_size": 64, "dropout": 0.3}}
    parsed = parse(recipe, "--learning_rate", "0.5", "--block_size", "128")
    assert parsed.training["learning_rate"] == 0.5
    assert parsed.training["weight_decay"] == 0.2
    assert parsed.training["global_batch_size"] == 32
    assert (parsed.model.block_size, parsed.model.dropout, parsed.model.architecture) == (128, 0.3, "gpt2")
    assert parsed.corpus.sources == [{"bundled": "all"}]


def test_the_defaults_are_those_of_the_specification() -> None:
    """An empty recipe is the specification: AdamW at 3e-4, decay 0.01, batch 32, 10 epochs, clipping at 1, 80/10/10."""
    parsed = parse({}, "--use_cpu", "--precision", "fp32")
    arguments = parsed.training_arguments()
    assert arguments.learning_rate == 3e-4
    assert arguments.weight_decay == 0.01
    assert (arguments.adam_beta1, arguments.adam_beta2, arguments.adam_epsilon) == (0.9, 0.999, 1e-8)
    assert (arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps) == (32, 1)
    assert arguments.num_train_epochs == 10
    assert arguments.max_grad_norm == 1.0
    assert arguments.warmup_steps == 1000
    assert arguments.lr_scheduler_type == "linear"
    assert parsed.model.dropout == 0.1
    assert (parsed.corpus.validation_fraction, parsed.corpus.test_fraction) == (0.1, 0.1)


@pytest.mark.parametrize(
    ("flags", "kept"),
    [
        (["--pacing", "competence"], {"stage_epochs": [3, 4, 3], "competence_epochs": 5.0}),
        (["--pacing", "staged", "--num_train_epochs", "5"], {"stage_epochs": [2, 1, 2]}),
        (["--curriculum", "none"], {"stage_epochs": [3, 4, 3], "pacing": "staged"}),
    ],
)
def test_a_flag_switches_off_what_hangs_on_two_keys(flags: list[str], kept: dict[str, Any]) -> None:
    """The stages of a recipe go when a flag takes their curriculum or their pacing away, and stay when it does not."""
    recipe = {
        "curriculum": {"curriculum": "length", "pacing": "cumulative", "stage_epochs": [2, 1, 2]},
        "training": {"num_train_epochs": 10},
    }
    parsed = parse(recipe, *flags)
    assert {key: getattr(parsed.curriculum, key) for key in kept} == kept
    assert parse(parsed.resolved()).resolved() == parsed.resolved()


@pytest.mark.parametrize(
    ("training", "flags", "kept"),
    [
        ({"num_train_epochs": 3}, ["--max_steps", "5"], {"num_train_epochs": 10.0, "max_steps": 5}),
        (
            {"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"num_cycles": 1.0}},
            ["--lr_scheduler_type", "linear"],
            {"lr_scheduler_type": "linear"},
        ),
        (
            {"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"num_cycles": 1.0}},
            ["--lr_scheduler_type", "cosine"],
            {"lr_scheduler_kwargs": {"num_cycles": 1.0}},
        ),
        ({"optim": "sgd", "optim_args": "momentum=0.9"}, ["--optim", "adagrad"], {"optim": "adagrad"}),
        (
            {"optim": "sgd", "optim_args": "momentum=0.9"},
            ["--muon_learning_rate", "0.02"],
            {"muon_learning_rate": 0.02},
        ),
        ({"num_train_epochs": 3}, ["--max_steps", "-1"], {"num_train_epochs": 3.0}),
        ({"warmup_steps": 20}, ["--lr_scheduler_type", "constant"], {"warmup_steps": 1000.0}),
        ({"warmup_steps": 20}, ["--lr_scheduler_type", "cosine"], {"warmup_steps": 20.0}),
        ({"run_name": "x", "report_to": "wandb"}, ["--report_to", "none"], {"report_to": "none"}),
    ],
)
def test_a_flag_takes_the_keys_that_it_switches_off_back_to_their_defaults(
    training: dict[str, Any], flags: list[str], kept: dict[str, Any]
) -> None:
    """A flag goes before keys of the recipe that have no effect beside it, and the resolved recipe can be run again."""
    parsed = parse({"training": training}, *flags)
    assert {key: parsed.training[key] for key in kept} == kept
    assert "run_name" not in parsed.training
    assert parse(parsed.resolved()).resolved() == parsed.resolved()


@pytest.mark.parametrize(
    ("flags", "section", "key", "value"),
    [
        (["--learning_rate", "3e-4"], "training", "learning_rate", 3e-4),
        (["--learning_rate=3e-4"], "training", "learning_rate", 3e-4),
        (["--learning_rate", "1"], "training", "learning_rate", 1.0),
        (["--max_steps", "-1"], "training", "max_steps", -1),
        (["--split_seed=-3"], "corpus", "split_seed", -3),
        (["--bf16"], "training", "bf16", True),
        (["--bf16", "true"], "training", "bf16", True),
        (["--load_best_model_at_end", "false"], "training", "load_best_model_at_end", False),
        (["--load_best_model_at_end=False"], "training", "load_best_model_at_end", False),
        (["--max_words", "none"], "corpus", "max_words", None),
        (["--save_total_limit", "null"], "training", "save_total_limit", None),
        (["--tasks", *TASKS], "evaluation", "tasks", list(TASKS)),
        (["--tasks", "[]"], "evaluation", "tasks", []),
        (["--tasks", json.dumps(list(TASKS))], "evaluation", "tasks", list(TASKS)),
        (
            ["--model_config", '{"n_layer": 2, "summary_type": "a=b"}'],
            "model",
            "model_config",
            {"n_layer": 2, "summary_type": "a=b"},
        ),
        (['--model_config={"n_layer": 2}'], "model", "model_config", {"n_layer": 2}),
        (["--lr_scheduler_kwargs", "{}"], "training", "lr_scheduler_kwargs", {}),
        (["--lr_scheduler_kwargs", "none"], "training", "lr_scheduler_kwargs", None),
        (["--report_to", "wandb", "tensorboard"], "training", "report_to", ["wandb", "tensorboard"]),
        (["--report_to", "none"], "training", "report_to", "none"),
        (["--output_dir", "5"], "training", "output_dir", "5"),
        (["--output_dir", "runs/mit Leerzeichen"], "training", "output_dir", "runs/mit Leerzeichen"),
        (["--tokenizer", "owner/name"], "tokenizer", "tokenizer", "owner/name"),
        (["--sources", '[{"path": "x"}]'], "corpus", "sources", [{"path": "x"}]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and value and isinstance(value[0], str) else "",
)
def test_flags_become_values_of_their_type(flags: list[str], section: str, key: str, value: Any) -> None:
    """A flag becomes what its key takes: numbers, true or false, null, lists and JSON objects, with or without `=`."""
    parsed = parse({}, *flags).resolved()[section][key]
    assert parsed == value
    assert type(parsed) is type(value)


def test_the_corpus_flag_replaces_the_sources(tmp_path: Path) -> None:
    """--corpus takes files, folders, globs and hub ids in place of the recipe's sources; what exists here is a path."""
    recipe = {"corpus": {"sources": [{"path": "old.txt"}], "max_words": 9}}
    (tmp_path / "owner" / "here").mkdir(parents=True)
    words = ["owner/name", "owner/here", "texts/a.txt", "texts/*", "~/mine", "./a/b", "/a/b", "plain", "a/b/c"]
    parsed = parse(recipe, "--corpus", *words)
    assert parsed.corpus.sources == [{"hub_id": "owner/name"}, *({"path": word} for word in words[1:])]
    assert parsed.corpus.max_words == 9
    assert parse(recipe, "--corpus=one.jsonl").corpus.sources == [{"path": "one.jsonl"}]


def test_the_resolved_recipe_is_parsed_to_itself() -> None:
    """The resolved recipe is plain JSON that holds every key of ours, and parsing it gives it again."""
    recipe = {"corpus": {"sources": [{"path": "x.txt", "max_words": 5}]}, "training": {"learning_rate": 1e-3}}
    parsed = parse(recipe, "--model_config", '{"n_layer": 2}', "--max_steps", "7", "--report_to", "none")
    resolved = parsed.resolved()
    for name, section in SECTIONS.items():
        assert set(resolved[name]) >= {f.name for f in dataclasses.fields(section)}
    assert resolved["training"]["max_steps"] == 7
    assert resolved["training"]["output_dir"] == str(Path("runs") / "r")
    Path("copy.json").write_text(json.dumps(resolved, allow_nan=False), encoding="utf-8")
    again = parse_recipe("copy.json")
    assert again.resolved() == resolved
    assert again.output_dir == parsed.output_dir


def test_the_run_folder_follows_the_recipe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A run lies in runs/NAME OF THE RECIPE unless output_dir says otherwise."""
    assert parse({}).output_dir == Path("runs/r")
    assert parse({"training": {"output_dir": "elsewhere"}}).output_dir == Path("elsewhere")
    assert parse({"training": {"output_dir": "elsewhere"}}, "--output_dir", "there").output_dir == Path("there")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parse({}, "--output_dir", "~/runs").output_dir == tmp_path / "runs"


def test_defaults_are_not_shared_between_recipes() -> None:
    """Changing one recipe's lists and objects leaves the next one's defaults alone."""
    first = parse({})
    first.corpus.sources.append({"path": "x"})
    first.model.model_config["n_layer"] = 1
    second = parse({})
    assert second.corpus.sources == [{"bundled": "all"}]
    assert second.model.model_config == {}


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.json")), ids=lambda path: path.stem)
def test_the_shipped_recipes_are_right(path: Path) -> None:
    """Every shipped recipe parses, and its training arguments are accepted."""
    recipe = parse_recipe(path, ["--use_cpu", "--precision", "fp32"])
    assert recipe.training_arguments().output_dir == str(Path("runs") / path.stem)


def test_no_key_stands_in_two_sections() -> None:
    """Keys are unique over all sections, so that flags can be flat, and each check belongs to a known key."""
    from hindi_babylm.training.arguments import HindiTrainingArguments

    training = {f.name for f in dataclasses.fields(HindiTrainingArguments)}
    keys = [f.name for name, section in SECTIONS.items() if name != "training" for f in dataclasses.fields(section)]
    assert len(keys) == len(set(keys))
    # Of the stock fields these are ours: the trainer never gets them.
    assert set(keys) & training == {"push_to_hub", "hub_model_id", "hub_private_repo", "hub_revision"}
    assert set(TRAINING_CHECKS) <= training
    assert "corpus" not in {*keys, *training}  # the flag --corpus


def test_help_is_one_screen_with_every_key_default_and_unit() -> None:
    """The help names each section and key of ours with default and unit, in 50 lines of 80 columns."""
    text = run_help()
    for name, section in SECTIONS.items():
        assert f"\n{name}: " in text
        for f in dataclasses.fields(section):
            assert re.search(rf"  {f.name} = \S", text), f.name
    for entry in (
        "max_words = null (words)",
        "vocab_size = 32000 (tokens)",
        "num_train_epochs = 10 (epochs)",
        "learning_rate = 0.0003 (per step)",
        'sources = [{"bundled": "all"}]',
        "logging_nan_inf_filter = false",
    ):
        assert f"  {entry}" in text
    for flag in ("--corpus", "--dry_run", "--overwrite", "--help SECTION"):
        assert flag in text
    assert max(map(len, text.splitlines())) <= 80
    assert len(text.splitlines()) <= 50


@pytest.mark.parametrize("name", [name for name in SECTIONS if name != "training"])
def test_help_of_a_section_explains_its_keys(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`--help SECTION` says of each key what it means, its unit, its range and its default, in 80 columns."""
    main(["--help", name])
    text = capsys.readouterr().out
    entries = dict(re.findall(r"^  (\w+) +(.*(?:\n {30}.*)*)", text, re.M))
    assert list(entries) == [f.name for f in dataclasses.fields(SECTIONS[name])]
    for f in dataclasses.fields(SECTIONS[name]):
        told = " ".join(entries[f.name].split())
        assert f.metadata["help"].rstrip(".") in told
        assert f.metadata.get("unit", "") in told.lower()
        assert all(str(f.metadata[check]) in told for check in ("low", "above", "high", "below") if check in f.metadata)
    assert max(map(len, text.splitlines())) <= 80


def test_units_are_those_of_the_documentation() -> None:
    """A unit that the help shows stands in the row of its key in recipes/README.md."""
    page = (Path(__file__).parent.parent / "recipes" / "README.md").read_text(encoding="utf-8")
    rows = {row.split("`")[1]: [c.strip() for c in row.split(" | ")] for row in page.splitlines() if row[:3] == "| `"}
    for section in SECTIONS.values():
        for f in dataclasses.fields(section):
            if "unit" in f.metadata:
                assert f.metadata["unit"] == rows[f.name][3], f.name


def test_training_help_marks_what_we_change() -> None:
    """The listing of all training fields marks ours and changed defaults with a star, and no other."""
    from transformers import TrainingArguments

    from hindi_babylm.training.arguments import HindiTrainingArguments

    entries: dict[str, str] = {}
    name = ""
    for line in training_help().splitlines()[2:]:
        if line.startswith("  ") and line[2] != " ":
            name, _, line = line.strip().partition(" ")
        entries[name] = f"{entries.get(name, '')} {line.strip()}".strip()
    stock = {f.name: f for f in dataclasses.fields(TrainingArguments)}
    own = {f.name: f for f in dataclasses.fields(HindiTrainingArguments)}
    for name in ("learning_rate", "weight_decay", "num_train_epochs", "global_batch_size", "precision", "project"):
        assert entries[name].startswith("* "), name
    for name in ("adam_beta1", "max_grad_norm", "seed", "bf16", "optim"):
        assert not entries[name].startswith("* "), name
    assert "[0.0003]" in entries["learning_rate"]
    starred = {name for name, text in entries.items() if text.startswith("* ")}
    assert starred >= set(own) - set(stock)
    assert {name for name, text in entries.items() if text.startswith("- ")} == set(REFUSED) & set(own)
    assert len(entries) > 80
    assert starred <= {f.name for f in dataclasses.fields(SECTIONS["training"])} | (set(own) - set(stock))


def run_python(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run Python in the working folder with the package importable."""
    root = str(Path(sections.__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "code",
    [
        "import hindi_babylm",
        "import hindi_babylm.run",
        "from hindi_babylm.run import main; main(['--help'])",
        "from hindi_babylm.run import main; main(['--help', 'corpus'])",
        "from hindi_babylm.commands import main; main(['--help'])",
        "from hindi_babylm.commands import main; main(['run', '--help'])",
        "import hindi_babylm.recipe.parsing, hindi_babylm.corpus.sources, hindi_babylm.modeling",
    ],
)
def test_import_and_help_load_no_heavy_library(code: str) -> None:
    """Importing the package and asking for help load neither torch nor transformers nor datasets."""
    heavy = ["torch", "transformers", "datasets", "evaluate", "accelerate", "tokenizers", "wandb"]
    done = run_python("-c", f"{code}\nimport sys\nprint([name for name in {heavy} if name in sys.modules])")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_documentation_has_a_row_for_every_key() -> None:
    """recipes/README.md explains each key of each section, no key that does not exist, and why some are refused."""
    from hindi_babylm.training.arguments import HindiTrainingArguments

    page = (Path(__file__).parent.parent / "recipes" / "README.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| `(\w+)` \|", page, re.M))
    keys = {f.name for section in SECTIONS.values() for f in dataclasses.fields(section)}
    keys |= {f.name for f in dataclasses.fields(HindiTrainingArguments) if f.init}
    # Fields that the lowest version of transformers does not have yet.
    assert documented <= keys | {"local_rank", "activation_checkpointing", "activation_checkpointing_kwargs"}
    assert keys - documented <= {"local_rank"}
    refused = dict(re.findall(r"^\| `(\w+)` \|.*\| (.*)\. \|$", page[page.index("#### Refused") :], re.M))
    assert refused == {key: reason[0].upper() + reason[1:] for key, reason in REFUSED.items()}
