import dataclasses
import doctest
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hindi_babylm.evaluation.tasks import TASKS
from hindi_babylm.recipe import listing, parsing, sections
from hindi_babylm.recipe.listing import run_help, training_help
from hindi_babylm.recipe.parsing import parse_recipe
from hindi_babylm.recipe.sections import SECTIONS, TRAINING_CHECKS, Recipe
from hindi_babylm.storage import UserError, exit_on_user_error

SHIPPED = Path(__file__).parent.parent / "recipes"
ALL_SECTIONS = ", ".join(SECTIONS)
SOURCE_KEYS = "path, hub_id, bundled, name, text_column, config, split, revision, sample_by, max_words"


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


def check_refused(recipe: Any, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Check that a recipe ends with exit code 2, exactly the line `message` ("..." for any rest), and no file."""
    with pytest.raises(SystemExit) as stopped, exit_on_user_error():
        parse(recipe, *flags).training_arguments()
    captured = capsys.readouterr()
    assert stopped.value.code == 2
    lines = captured.err.splitlines()
    assert len(lines) == 1
    assert captured.err.endswith("\n")
    if message.endswith("..."):
        assert lines[0].startswith("error: " + message[:-3])
    else:
        assert lines[0] == "error: " + message
    assert [path.name for path in Path().iterdir()] == ["r.json"]


@pytest.mark.parametrize("module", [sections, parsing, listing])
def test_doctests(module: Any) -> None:
    """The examples in the docstrings hold."""
    assert doctest.testmod(module).failed == 0


# Each wrong recipe, and the one line that it gets.
WRONG_RECIPES: list[tuple[Any, str]] = [
    # the file
    ("[1]", f"r.json: a recipe is a JSON object of sections {ALL_SECTIONS}, got [1]"),
    ('"x"', f'r.json: a recipe is a JSON object of sections {ALL_SECTIONS}, got "x"'),
    ('{"model":\n  {"dropout" 0.1}\n}', "r.json: line 2, column 14: not JSON: Expecting ':' delimiter"),
    ('{"model":', "r.json: line 1, column 10: not JSON: Expecting value"),
    ("", "r.json: line 1, column 1: not JSON: Expecting value"),
    ('{"training": {"seed": 1, "seed": 2}}', "r.json: key 'seed' stands twice in one object; keep one"),
    ('{"model": {}, "model": {}}', "r.json: key 'model' stands twice in one object; keep one"),
    ('{"training": {"learning_rate": NaN}}', "r.json: NaN is no JSON; write a number"),
    ('{"model": {"model_config": {"x": -Infinity}}}', "r.json: -Infinity is no JSON; write a number"),
    # sections and keys
    ({"modle": {}}, "r.json: unknown section 'modle'; did you mean 'model'?"),
    ({"xyz": {}}, f"r.json: unknown section 'xyz'; there are {ALL_SECTIONS}"),
    ({"training": []}, "r.json: section 'training' must be a JSON object of keys, got []"),
    ({"model": None}, "r.json: section 'model' must be a JSON object of keys, got null"),
    (
        {"training": {"learning_rat": 1}},
        "r.json: training.learning_rat: unknown key; did you mean 'learning_rate' (section 'training')?",
    ),
    (
        {"training": {"evaluation_strategy": "no"}},
        "r.json: training.evaluation_strategy: unknown key; did you mean 'eval_strategy' (section 'training')?",
    ),
    ({"model": {"learning_rate": 1e-3}}, "r.json: model.learning_rate: unknown key; it belongs in section 'training'"),
    ({"training": {"vocab_size": 900}}, "r.json: training.vocab_size: unknown key; it belongs in section 'tokenizer'"),
    (
        {"tokenizer": {"qqqq": 1}},
        "r.json: tokenizer.qqqq: unknown key; section 'tokenizer' has tokenizer, algorithm, vocab_size",
    ),
    # types
    ({"tokenizer": {"vocab_size": "8k"}}, 'r.json: tokenizer.vocab_size = "8k": expected a whole number'),
    (
        {"tokenizer": {"vocab_size": "8000"}},
        'r.json: tokenizer.vocab_size = "8000": expected a whole number; write it without quotes',
    ),
    (
        {"training": {"load_best_model_at_end": "false"}},
        'r.json: training.load_best_model_at_end = "false": expected true or false or null; write it without quotes',
    ),
    (
        {"training": {"learning_rate": "3e-4"}},
        'r.json: training.learning_rate = "3e-4": expected a number; write it without quotes',
    ),
    ({"training": {"learning_rate": True}}, "r.json: training.learning_rate = true: expected a number"),
    ({"training": {"seed": True}}, "r.json: training.seed = true: expected a whole number"),
    ({"training": {"bf16": 1}}, "r.json: training.bf16 = 1: expected true or false"),
    ({"training": {"seed": 1.5}}, "r.json: training.seed = 1.5: expected a whole number"),
    ({"training": {"global_batch_size": None}}, "r.json: training.global_batch_size = null: expected a whole number"),
    ({"model": {"model_config": []}}, "r.json: model.model_config = []: expected an object"),
    ({"evaluation": {"tasks": "all"}}, 'r.json: evaluation.tasks = "all": expected a list'),
    ({"evaluation": {"tasks": [5]}}, "r.json: evaluation.tasks: 5 in the list: expected text"),
    ({"corpus": {"sources": ["x"]}}, 'r.json: corpus.sources: "x" in the list: expected an object'),
    # ranges
    ({"training": {"learning_rate": -1}}, "r.json: training.learning_rate = -1.0: expected more than 0"),
    ('{"training": {"learning_rate": 1e999}}', "r.json: training.learning_rate = inf: expected a finite number"),
    (
        {"training": {"gradient_accumulation_steps": 0}},
        "r.json: training.gradient_accumulation_steps = 0: expected at least 1",
    ),
    ({"training": {"num_train_epochs": 0}}, "r.json: training.num_train_epochs = 0.0: expected more than 0"),
    ({"training": {"adam_beta1": 1}}, "r.json: training.adam_beta1 = 1.0: expected at least 0 and less than 1"),
    ({"training": {"seed": -1}}, "r.json: training.seed = -1: expected at least 0"),
    ({"tokenizer": {"vocab_size": 100}}, "r.json: tokenizer.vocab_size = 100: expected at least 512"),
    ({"model": {"block_size": 1}}, "r.json: model.block_size = 1: expected at least 2"),
    ({"model": {"dropout": 1}}, "r.json: model.dropout = 1.0: expected at least 0 and less than 1"),
    ({"corpus": {"max_words": 0}}, "r.json: corpus.max_words = 0: expected at least 1"),
    (
        {"corpus": {"validation_fraction": 0}},
        "r.json: corpus.validation_fraction = 0.0: expected more than 0 and less than 1",
    ),
    # choices
    (
        {"model": {"architecture": "gpt3"}},
        "r.json: model.architecture = \"gpt3\": expected one of gpt2, llama; did you mean 'gpt2'?",
    ),
    ({"model": {"architecture": "zzz"}}, 'r.json: model.architecture = "zzz": expected one of gpt2, llama'),
    ({"training": {"precision": "tf32"}}, 'r.json: training.precision = "tf32": expected one of auto, fp32, bf16, ...'),
    (
        {"training": {"eval_strategy": "sometimes"}},
        'r.json: training.eval_strategy = "sometimes": expected one of no, steps, epoch',
    ),
    (
        {"evaluation": {"tasks": ["hindi_pair_pud"]}},
        f'r.json: evaluation.tasks = "hindi_pair_pud": expected one of {", ".join(TASKS)}; did you mean ...',
    ),
    # sources
    (
        {"corpus": {"sources": []}},
        "r.json: corpus.sources is empty: name at least one source, or leave it out for the bundled",
    ),
    ({"corpus": {"sources": [{}]}}, "r.json: corpus.sources: {} must have exactly one of path, hub_id, bundled"),
    (
        {"corpus": {"sources": [{"path": "x", "hub_id": "y"}]}},
        'r.json: corpus.sources: {"path": "x", "hub_id": "y"} must have exactly one of path, hub_id, bundled',
    ),
    (
        {"corpus": {"sources": [{"path": "x", "text_colum": "y"}]}},
        'r.json: corpus.sources: unknown key \'text_colum\' in {"path": "x", "text_colum": "y"}; '
        "did you mean 'text_column'?",
    ),
    (
        {"corpus": {"sources": [{"path": "x", "zzzz": 1}]}},
        f'r.json: corpus.sources: unknown key \'zzzz\' in {{"path": "x", "zzzz": 1}}; there are {SOURCE_KEYS}',
    ),
    ({"corpus": {"sources": [{"path": 5}]}}, "r.json: corpus.sources: path = 5: expected text"),
    (
        {"corpus": {"sources": [{"path": "x", "max_words": 0}]}},
        "r.json: corpus.sources: max_words = 0: expected a whole number of at least 1",
    ),
    (
        {"corpus": {"sources": [{"path": "x", "max_words": True}]}},
        "r.json: corpus.sources: max_words = true: expected a whole number of at least 1",
    ),
    (
        {"corpus": {"sources": [{"path": "x", "sample_by": "lines"}]}},
        'r.json: corpus.sources: sample_by = "lines": expected one of line, paragraph, document',
    ),
    # contradictions
    (
        {"corpus": {"validation_fraction": 0.5, "test_fraction": 0.5}},
        "r.json: corpus.validation_fraction 0.5 + test_fraction 0.5 leave nothing to train on: lower one",
    ),
    (
        {"training": {"early_stopping_patience": 2, "eval_strategy": "no", "load_best_model_at_end": False}},
        "r.json: training.early_stopping_patience 2 needs evaluations: set eval_strategy to steps or epoch, or ...",
    ),
    # what the training arguments themselves refuse
    (
        {"training": {"global_batch_size": 10, "per_device_train_batch_size": 4}},
        "r.json: training: global_batch_size 10 does not equal a whole number of 1 process x "
        "per_device_train_batch_size 4: set global_batch_size to a multiple of 4",
    ),
    (
        {
            "training": {
                "global_batch_size": 8,
                "per_device_train_batch_size": 4,
                "gradient_accumulation_steps": 4,
            }
        },
        "r.json: training: global_batch_size 8 does not equal a whole number of 1 process x "
        "per_device_train_batch_size 4 x gradient_accumulation_steps 4: set global_batch_size to 16, or ...",
    ),
    (
        {"training": {"bf16": True, "precision": "fp32"}},
        "r.json: training: precision fp32 contradicts bf16 true: leave one of them out",
    ),
    (
        {"training": {"precision": "fp16", "use_cpu": True}},
        "r.json: training: precision fp16 needs a CUDA GPU: take auto, bf16 or fp32",
    ),
    ({"training": {"lr_scheduler_type": "cosin"}}, "r.json: training: cosin is not a valid SchedulerType, ..."),
    (
        {"training": {"eval_strategy": "steps", "eval_steps": 10}},
        "r.json: training: --load_best_model_at_end requires the save and eval strategy to match, ...",
    ),
    (
        {"training": {"eval_strategy": "steps", "eval_steps": 10, "save_strategy": "steps", "save_steps": 15}},
        "r.json: training: --load_best_model_at_end requires the saving steps to be a round multiple of ...",
    ),
]


@pytest.mark.parametrize(("recipe", "message"), WRONG_RECIPES, ids=[message[:60] for _, message in WRONG_RECIPES])
def test_a_wrong_recipe_is_refused_in_one_line(recipe: Any, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong recipe ends with exit code 2 and one line of file, key, value and way out; nothing is written."""
    check_refused(recipe, [], message, capsys)


WRONG_FLAGS: list[tuple[list[str], str]] = [
    (["learning_rate", "1"], "command line: unexpected 'learning_rate'; flags are written --key value"),
    (["-l", "1"], "command line: unexpected '-l'; flags are written --key value"),
    (["--learning_rate"], "command line: --learning_rate: expected a number"),
    (["--corpus"], "command line: --corpus: expected a file, folder, glob or hub id"),
    (["--tasks"], "command line: --tasks: expected a list"),
    (["--seed", "1", "--seed", "2"], "command line: --seed is given twice; keep one"),
    (
        ["--corpus", "a", "--sources", '[{"path": "b"}]'],
        "command line: --corpus and --sources both name the texts; keep one",
    ),
    (
        ["--learning_rat", "1"],
        "command line: --learning_rat: unknown flag; did you mean 'learning_rate' (section 'training')?",
    ),
    (
        ["--learning-rate", "1"],
        "command line: --learning-rate: unknown flag; did you mean 'learning_rate' (section 'training')?",
    ),
    (["--zzzzzzz", "1"], "command line: --zzzzzzz: unknown flag; see run --help"),
    (["--learning_rate", "abc"], 'command line: --learning_rate = "abc": expected a number'),
    (["--learning_rate="], 'command line: --learning_rate = "": expected a number'),
    (["--learning_rate", "none"], 'command line: --learning_rate = "none": expected a number'),
    (["--learning_rate", "nan"], "command line: --learning_rate = nan: expected a finite number"),
    (["--learning_rate", "1", "2"], "command line: --learning_rate: expected one value (a number), got 2: 1 2"),
    (["--learning_rate", "-1e-3"], "command line: --learning_rate = -0.001: expected more than 0"),
    (["--vocab_size", "1e4"], 'command line: --vocab_size = "1e4": expected a whole number'),
    (["--dropout", "-0.5"], "command line: --dropout = -0.5: expected at least 0 and less than 1"),
    (["--bf16", "maybe"], 'command line: --bf16 = "maybe": expected true or false'),
    (
        ["--architecture", "lama"],
        "command line: --architecture = \"lama\": expected one of gpt2, llama; did you mean 'llama'?",
    ),
    (["--model_config", "{bad"], 'command line: --model_config = "{bad": expected an object'),
    (["--model_config", "[1]"], "command line: --model_config = [1]: expected an object"),
    (["--tasks", "x", "y"], f'command line: --tasks = "x": expected one of {", ".join(TASKS)}'),
]


@pytest.mark.parametrize(("flags", "message"), WRONG_FLAGS, ids=[" ".join(flags) for flags, _ in WRONG_FLAGS])
def test_a_wrong_flag_is_refused_in_one_line(
    flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong flag ends with exit code 2 and one line that names the command line, the flag and the way out."""
    check_refused({}, flags, message, capsys)


def test_a_recipe_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """A recipe that is missing, a folder, or no UTF-8 is refused in one line."""
    (tmp_path / "latin.json").write_bytes(b"\xff{}")
    for name, message in {
        "missing.json": "missing.json: cannot read the recipe: No such file or directory; shipped ones lie in recipes/",
        ".": ".: cannot read the recipe: Is a directory; shipped ones lie in recipes/",
        "latin.json": "latin.json: the recipe is not UTF-8 text: invalid start byte at byte 0",
    }.items():
        with pytest.raises(UserError) as caught:
            parse_recipe(name)
        assert str(caught.value) == message


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
        (["--model_config", '{"n_layer": 2, "x": "a=b"}'], "model", "model_config", {"n_layer": 2, "x": "a=b"}),
        (['--model_config={"n_layer": 2}'], "model", "model_config", {"n_layer": 2}),
        (["--lr_scheduler_kwargs", '{"min_lr": 1e-5}'], "training", "lr_scheduler_kwargs", {"min_lr": 1e-5}),
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


def test_the_run_folder_follows_the_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run lies in runs/NAME OF THE RECIPE unless output_dir says otherwise."""
    assert parse({}).output_dir == Path("runs/r")
    assert parse({"training": {"output_dir": "elsewhere"}}).output_dir == Path("elsewhere")
    assert parse({"training": {"output_dir": "elsewhere"}}, "--output_dir", "there").output_dir == Path("there")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert parse({}, "--output_dir", "~/runs").output_dir == Path("/home/somebody/runs")


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
    assert not set(keys) & training
    assert set(TRAINING_CHECKS) <= training
    assert "corpus" not in {*keys, *training}  # the flag --corpus


def test_help_names_every_key_with_its_default() -> None:
    """The help names every section and each key of ours, with help text and default, in 80 columns."""
    text = run_help()
    for name, section in SECTIONS.items():
        assert f"\n{name}" in text
        for f in dataclasses.fields(section):
            assert f"\n  {f.name}" in text, f.name
            assert f.metadata["help"]
    assert "[32000]" in text
    assert "--corpus" in text
    assert "--overwrite" in text
    assert max(map(len, text.splitlines())) <= 80


def test_training_help_marks_what_we_change() -> None:
    """The listing of all training fields marks ours and changed defaults with a star, and no other."""
    from transformers import TrainingArguments

    from hindi_babylm.training.arguments import HindiTrainingArguments

    entries: dict[str, str] = {}
    name = ""
    for line in training_help().splitlines()[1:]:
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
        "from hindi_babylm.commands import main; main(['--help'])",
        "from hindi_babylm.commands import main; main(['run', '--help'])",
        "import hindi_babylm.recipe.parsing, hindi_babylm.corpus, hindi_babylm.tokenization, hindi_babylm.modeling",
    ],
)
def test_import_and_help_load_no_heavy_library(code: str) -> None:
    """Importing the package and asking for help load neither torch nor transformers nor datasets."""
    heavy = ["torch", "transformers", "datasets", "evaluate", "accelerate", "tokenizers", "wandb"]
    done = run_python("-c", f"{code}\nimport sys\nprint([name for name in {heavy} if name in sys.modules])")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_wrong_recipe_ends_the_command(tmp_path: Path) -> None:
    """The command itself ends with exit code 2 and one line on stderr, and writes nothing."""
    (tmp_path / "bad.json").write_text('{"model": {"dropuot": 0.1}}', encoding="utf-8")
    done = run_python("-m", "hindi_babylm.run", "bad.json")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "error: bad.json: model.dropuot: unknown key; did you mean 'dropout' (section 'model')?\n"
    assert [path.name for path in tmp_path.iterdir()] == ["bad.json"]


def test_documentation_has_a_row_for_every_key() -> None:
    """recipes/README.md explains each key of each section, and no key that does not exist."""
    import re

    from hindi_babylm.training.arguments import HindiTrainingArguments

    page = (Path(__file__).parent.parent / "recipes" / "README.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| `(\w+)` \|", page, re.M))
    keys = {f.name for section in SECTIONS.values() for f in dataclasses.fields(section)}
    keys |= {f.name for f in dataclasses.fields(HindiTrainingArguments) if f.init}
    # Fields that the lowest version of transformers does not have yet.
    assert documented <= keys | {"local_rank", "activation_checkpointing", "activation_checkpointing_kwargs"}
    assert keys - documented <= {"local_rank"}
