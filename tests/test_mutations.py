"""No key is ignored: each one of ours changes what a run does, each stock one reaches the trainer or is refused."""

import dataclasses
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from hindi_babylm.evaluation.tasks import TASKS
from hindi_babylm.recipe.checking import accepted_types, known_keys
from hindi_babylm.recipe.parsing import parse_recipe
from hindi_babylm.recipe.refused import REFUSED
from hindi_babylm.recipe.sections import SECTIONS
from hindi_babylm.run import main
from hindi_babylm.storage import UserError
from hindi_babylm.tokenization.algorithms import TOKENIZERS, train_bpe
from hindi_babylm.tokenization.training import train_tokenizer
from tests.conftest import TINY_DEBERTA, TINY_GPT2, TINY_LLAMA, WORDS, tiny_recipe

pytestmark = pytest.mark.usefixtures("unreported")

Recipe = dict[str, dict[str, Any]]
# Time is no result.
CLOCKS = {"seconds", "tokens_per_second", "peak_memory_bytes", "eval_runtime", "eval_samples_per_second"}
CLOCKS |= {"eval_steps_per_second"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a corpus of compound words, a tokenizer and a suite of two minimal pairs."""
    path = tmp_path_factory.mktemp("mutations")
    draw = random.Random(0)
    texts = [" ".join("".join(draw.choices(WORDS, k=2)) for _ in range(30)) for _ in range(60)]
    # One of each that a key of the corpus acts on: short, long, nearly equal, shared by splits, dirty.
    opening = " ".join(draw.choices(WORDS, k=14))
    texts += [texts[0].rsplit(" ", 3)[0], " ".join(draw.choices(WORDS, k=150)), f"{texts[1]} |", texts[2] + "\u200b"]
    texts += [f"{opening} ।\n{text}" for text in texts[3:12]]
    rows = [json.dumps({"text": text, "id": f"doc-{number}"}) for number, text in enumerate(texts)]
    (path / "corpus.jsonl").write_text("\n".join(rows), encoding="utf-8")
    train_tokenizer(texts, vocab_size=530).save_pretrained(path / "tokenizer")
    pairs = "phenomenon\tsen\twrong_sen\nagreement\tराम है\tराम हैं\nagreement\tघर था\tघर थी\n"
    (path / "pairs.tsv").write_text(pairs, encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def registered(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Add a second tokenizer and a small task, so that each registry has a choice."""
    monkeypatch.setitem(TOKENIZERS, "smaller", lambda texts, vocab_size: train_bpe(texts, vocab_size - 100))
    monkeypatch.setitem(TASKS, "pairs", folder / "pairs.tsv")


def recipe_of(folder: Path, changes: Recipe) -> Recipe:
    """Return the recipe that every mutation starts from, with `changes` in it."""
    recipe = tiny_recipe(folder / "corpus.jsonl", global_batch_size=4)
    recipe["tokenizer"]["vocab_size"] = 600
    for section, entries in changes.items():
        recipe[section] = {**recipe.get(section, {}), **entries}
    return recipe


def observe(recipe: Recipe, workplace: Path, capfd: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Run a recipe in a fresh folder and return what came of it; what only repeats the recipe is left out."""
    workplace.mkdir()
    os.chdir(workplace)
    Path("tiny.json").write_text(json.dumps(recipe), encoding="utf-8")
    capfd.readouterr()
    try:
        main(["tiny.json"])
        code: Any = 0
    except SystemExit as stop:  # a run may diverge
        code = stop.code
    (run,) = (path.parent for path in Path().rglob("metrics.jsonl"))
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    checkpoints = sorted(run.glob("checkpoints/*.pt"))
    state = torch.load(checkpoints[-1], weights_only=True)["trainer_state"] if checkpoints else {}
    results = json.loads((run / "results.json").read_text(encoding="utf-8")) if code == 0 else {}
    results.get("training", {}).update(dict.fromkeys(CLOCKS))
    environment = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    return {
        "code": code,
        "folder": str(run),
        "data": environment["sha256"],
        "precision": environment["precision"],
        "corpus": json.loads((run / "corpus.json").read_text(encoding="utf-8")),
        "metrics": [{key: value for key, value in event.items() if key not in CLOCKS} for event in metrics],
        "checkpoints": [path.name for path in checkpoints],
        "best": state.get("best_metric"),
        "log every": state.get("logging_steps"),
        "results": results,
        "batch": [line for line in capfd.readouterr().out.splitlines() if line.startswith("Training: batch")],
    }


# Key -> another value, and what else the recipe needs for the key to matter.
MUTATIONS: dict[str, tuple[Any, Recipe]] = {
    "sources": (lambda folder: [{"path": str(folder / "corpus.jsonl"), "max_words": 1500}], {}),
    "max_words": (1500, {}),
    "validation_fraction": (0.3, {}),
    "test_fraction": (0.3, {}),
    "split_seed": (3, {}),
    "max_bytes": (20_000, {}),
    "hygiene": ([], {}),
    "min_words": (29, {}),
    "max_document_words": (100, {}),
    "near_duplicate_threshold": (0.5, {}),
    "decontaminate": (False, {}),
    "tokenizer": (lambda folder: str(folder / "tokenizer"), {"tokenizer": {"vocab_size": 32_000}}),
    "algorithm": ("smaller", {}),
    "vocab_size": (540, {}),
    "architecture": ("llama", {}),
    "block_size": (16, {}),
    "dropout": (0.5, {}),
    "model_config": ({**TINY_GPT2, "n_layer": 1}, {}),
    "mask_probability": (0.4, {"model": {"architecture": "deberta-v2", "model_config": TINY_DEBERTA}}),
    "tasks": (["pairs"], {}),
    "output_dir": ("elsewhere", {}),
    "global_batch_size": (8, {}),
    "per_device_train_batch_size": (2, {}),
    "gradient_accumulation_steps": (2, {}),
    "num_train_epochs": (2, {}),
    "learning_rate": (1e-3, {}),
    "muon_learning_rate": (1e-3, {}),
    "ema_decay": (0.9, {}),
    "weight_decay": (0.5, {}),
    "lr_scheduler_type": ("cosine", {}),
    "warmup_steps": (0, {}),
    "precision": ("bf16", {}),
    "early_stopping_patience": (
        1,
        # The first evaluation is the best: nothing can be learnt after it.
        {
            "training": {
                **{"num_train_epochs": 4, "learning_rate": 1.0, "weight_decay": 0.0, "lr_scheduler_type": "constant"}
            }
        },
    ),
    "eval_strategy": ("no", {}),
    "save_strategy": ("best", {}),
    "save_total_limit": (1, {"training": {"num_train_epochs": 3}}),
    "milestones": ([1000], {}),
    "load_best_model_at_end": (False, {}),
    "metric_for_best_model": ("perplexity", {}),
    "logging_steps": (3, {}),
    "curriculum": (
        "length",
        {"curriculum": {"curriculum": "random", "stage_epochs": [1, 1]}, "training": {"num_train_epochs": 2}},
    ),
    "repack": (True, {}),
    "pacing": (
        "competence",
        {"curriculum": {"curriculum": "length"}, "training": {"num_train_epochs": 10, "global_batch_size": 16}},
    ),
    "competence_epochs": (
        1.0,
        {
            "curriculum": {"curriculum": "length", "pacing": "competence", "competence_epochs": 2.0},
            "training": {"num_train_epochs": 2},
        },
    ),
    "document_attention": (True, {}),
    "stage_epochs": (
        [2, 1],
        {"curriculum": {"curriculum": "length", "stage_epochs": [1, 2]}, "training": {"num_train_epochs": 3}},
    ),
}
# Keys with tests of their own, and where: what they change is not seen in one run folder of one process.
ELSEWHERE = {
    "restore_callback_states_from_checkpoint": "below",
    "strict": "test_awkward_corpus.py",
    "preprocessing_num_workers": "test_documents.py",
    **dict.fromkeys(("project", "wandb_tags", "wandb_notes"), "test_trackers.py"),
    "fsdp": "test_processes.py",
    "ddp_find_unused_parameters": "test_plan.py",
    "log_level": "test_console.py",
    **dict.fromkeys(("push_to_hub", "hub_model_id", "hub_private_repo", "hub_revision"), "test_publish.py"),
    "publish_revisions": "test_publish.py",
    "logging_nan_inf_filter": "below: refused",
}


def test_every_key_of_ours_is_mutated() -> None:
    """A key that is added to a section needs a mutation that shows its effect."""
    assert set(MUTATIONS) | set(ELSEWHERE) == {
        f.name for section in SECTIONS.values() for f in dataclasses.fields(section)
    }


@pytest.fixture(scope="module")
def references() -> dict[str, dict[str, Any]]:
    """Return the observations of unmutated recipes, filled as they are needed."""
    return {}


@pytest.mark.parametrize("key", MUTATIONS)
def test_each_key_of_ours_changes_the_run(
    key: str,
    folder: Path,
    references: dict[str, dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Another value of a key changes the data, the steps, the checkpoints, the figures or where they lie."""
    monkeypatch.chdir(tmp_path)  # and back again after the test
    value, needs = MUTATIONS[key]
    name = json.dumps(needs)
    if name not in references:
        references[name] = observe(recipe_of(folder, needs), tmp_path / "reference", capfd)
    section = next(name for name, cls in SECTIONS.items() if key in {f.name for f in dataclasses.fields(cls)})
    recipe = recipe_of(folder, needs)
    recipe.setdefault(section, {})[key] = value(folder) if callable(value) else value
    if key == "architecture":
        recipe["model"]["model_config"] = TINY_LLAMA  # the same sizes under the other class's names
    assert observe(recipe, tmp_path / "mutated", capfd) != references[name]


def test_the_same_recipe_changes_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Two runs of one recipe are observed to be equal, so a difference is the mutation's."""
    monkeypatch.chdir(tmp_path)
    first = observe(recipe_of(folder, {}), tmp_path / "first", capfd)
    assert first["results"]
    assert observe(recipe_of(folder, {}), tmp_path / "second", capfd) == first


@pytest.mark.parametrize(("restored", "waited"), [(True, 2), (False, 1)])
def test_the_patience_of_a_resumed_run(
    restored: bool, waited: int, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """restore_callback_states_from_checkpoint decides whether a resumed run knows how long it has been waiting."""
    monkeypatch.chdir(tmp_path)
    training = {
        "restore_callback_states_from_checkpoint": restored,
        "early_stopping_patience": 5,
        "num_train_epochs": 3,
        "save_total_limit": None,
        # The first evaluation is the best: nothing can be learnt after it.
        **{"learning_rate": 1.0, "max_grad_norm": 1.0, "lr_scheduler_type": "constant", "weight_decay": 0.0},
    }
    Path("tiny.json").write_text(json.dumps(recipe_of(folder, {"training": training})), encoding="utf-8")
    main(["tiny.json", "--output_dir", "whole"])
    main(
        ["tiny.json", "--output_dir", "resumed", "--resume_from_checkpoint", "whole/checkpoints/checkpoint_epoch_2.pt"]
    )
    counters = [
        torch.load(Path(run, "checkpoints/checkpoint_epoch_3.pt"), weights_only=True)["trainer_state"][
            "stateful_callbacks"
        ]["EarlyStoppingCallback"]["attributes"]["early_stopping_patience_counter"]
        for run in ("whole", "resumed")
    ]
    assert counters == [2, waited]


# Key -> another value, and what else section training needs for it to be accepted.
STOCK: dict[str, tuple[Any, dict[str, Any]]] = {
    "accelerator_config": ({"non_blocking": True}, {}),
    "activation_checkpointing": (True, {}),
    "activation_checkpointing_kwargs": ({"use_reentrant": True}, {}),
    "adam_beta1": (0.5, {}),
    "adam_beta2": (0.5, {}),
    "adam_epsilon": (1e-3, {}),
    "bf16": (True, {"precision": "auto"}),
    "data_seed": (5, {}),
    "dataloader_multiprocessing_context": ("spawn", {"dataloader_num_workers": 1}),
    "dataloader_num_workers": (1, {}),
    "dataloader_persistent_workers": (True, {"dataloader_num_workers": 1}),
    "dataloader_prefetch_factor": (3, {"dataloader_num_workers": 1}),
    "ddp_broadcast_buffers": (True, {}),
    "ddp_bucket_cap_mb": (5, {}),
    "ddp_static_graph": (True, {}),
    "ddp_timeout": (60, {}),
    "debug": ("underflow_overflow", {}),
    "eval_accumulation_steps": (2, {}),
    "eval_delay": (2, {}),
    "eval_on_start": (True, {}),
    "eval_steps": (5, {"eval_strategy": "steps", "save_strategy": "steps", "save_steps": 10}),
    "full_determinism": (True, {}),
    "gradient_checkpointing": (True, {}),
    "gradient_checkpointing_kwargs": ({"use_reentrant": True}, {}),
    "include_num_input_tokens_seen": ("all", {}),
    "label_smoothing_factor": (0.1, {}),
    "log_level_replica": ("info", {}),
    "log_on_each_node": (False, {}),
    "logging_first_step": (True, {}),
    "logging_strategy": ("epoch", {}),
    "lr_scheduler_kwargs": ({"min_lr": 1e-4}, {"lr_scheduler_type": "cosine_with_min_lr"}),
    "max_grad_norm": (0.1, {}),
    "max_steps": (3, {}),
    "neftune_noise_alpha": (5.0, {}),
    "optim": ("sgd", {}),
    "optim_args": ("momentum=0.9", {"optim": "sgd"}),
    "per_device_eval_batch_size": (2, {}),
    "report_to": ("tensorboard", {}),
    "run_name": ("mine", {"report_to": "tensorboard"}),
    "save_steps": (4, {"eval_strategy": "steps", "save_strategy": "steps", "eval_steps": 2}),
    "seed": (7, {}),
    "torch_compile": (True, {}),
    "torch_compile_backend": ("eager", {"torch_compile": True}),
    "torch_compile_mode": ("default", {"torch_compile": True}),
    "torch_empty_cache_steps": (1, {}),
    "use_cpu": (True, {}),
}
# What only another machine, package or command accepts, or what follows from other keys.
NOT_HERE = {
    *("fp16", "tf32", "dataloader_pin_memory"),  # a GPU
    *("ddp_backend", "fsdp", "fsdp_config", "deepspeed"),  # several processes
    *("use_liger_kernel", "liger_kernel_config", "optim_target_modules"),  # a package
    *("trackio_space_id", "trackio_bucket_id", "trackio_static_space_id"),  # a tracker
    "greater_is_better",  # false is what it is anyway, true is refused
    "resume_from_checkpoint",  # above
    "local_rank",  # gone from some releases
}
WITHOUT_DEFAULT_NAMES = {"activation_checkpointing", "activation_checkpointing_kwargs"}  # not in every release


def test_every_stock_key_is_refused_or_reaches_the_trainer() -> None:
    """Each key of transformers is refused, or has a row in the table of accepted ones."""
    stock = {name for name, key in known_keys().items() if key.section == "training"} - set(MUTATIONS) - set(ELSEWHERE)
    assert stock - set(REFUSED) - NOT_HERE <= set(STOCK)
    assert set(STOCK) - WITHOUT_DEFAULT_NAMES <= stock
    assert not set(STOCK) & set(REFUSED)


@pytest.mark.parametrize("key", STOCK)
def test_each_accepted_stock_key_reaches_the_arguments(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another value of a stock key is another value of the arguments that the trainer gets."""
    monkeypatch.chdir(tmp_path)
    if key not in known_keys():
        pytest.skip("not a key of this release")
    value, needs = STOCK[key]
    found = []
    for entries in (needs, {**needs, key: value}):
        if key in ("bf16", "lr_scheduler_kwargs") and key not in entries:
            entries = {}
        Path("r.json").write_text(json.dumps({"training": {"precision": "fp32", **entries}}), encoding="utf-8")
        found.append(vars(parse_recipe("r.json").training_arguments())[key])
    assert found[0] != found[1]


@pytest.mark.parametrize("key", REFUSED)
def test_each_refused_key_is_refused(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused key is told with its reason at any value but its default, and accepted at that."""
    monkeypatch.chdir(tmp_path)
    known = known_keys()
    if key not in known:
        pytest.skip("not a key of this release")
    default = known[key].default
    accepted = accepted_types(known[key].hint)
    other: Any = {bool: not default, int: 7, list: ["x"], str: "x"}[
        next(t for t in (bool, int, list, str) if t in accepted)
    ]
    other = {"hub_strategy": "end", "train_sampling_strategy": "sequential"}.get(key, other)
    other = ["loss"] if key == "include_for_metrics" else other
    Path("r.json").write_text(json.dumps({"training": {key: other}}), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        parse_recipe("r.json")
    assert str(caught.value).startswith(f"r.json: training.{key} ")
    assert str(caught.value).endswith(REFUSED[key])
    Path("r.json").write_text(json.dumps({"training": {key: default}}), encoding="utf-8")
    assert parse_recipe("r.json").training[key] == default
