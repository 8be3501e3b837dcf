"""Every wrong recipe and command line ends with exit code 2 and one exact line; nothing is written."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hindi_babylm.corpus.reading import FORMATS
from hindi_babylm.evaluation.tasks import KINDS, TASKS
from hindi_babylm.modeling import ARCHITECTURES, CONFIG_CLASSES
from hindi_babylm.recipe.checking import known_keys
from hindi_babylm.recipe.parsing import parse_recipe
from hindi_babylm.recipe.refused import REFUSED
from hindi_babylm.recipe.sections import SECTIONS
from hindi_babylm.run import main

ALL_SECTIONS = ", ".join(SECTIONS)
SOURCE_KEYS = (
    "path, hub_id, bundled, name, licence, text_column, config, split, revision, streaming, sample_by, weight, "
    + "max_words"
)
OR_PATH = "or the path of " + ", ".join(kind.told_by for kind in KINDS.values())
BEST = "the best model is loaded from a checkpoint of its evaluation"
ALL_SLOW = ["torch", "transformers", "datasets", "accelerate", "evaluate", "numpy"]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, as one process that no launcher started; what is not refused is not trained."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("hindi_babylm.run.train", lambda *args, **kwargs: pytest.fail("not refused"))
    # With WANDB_MODE, the import of wandb prints a line.
    for name in ("WORLD_SIZE", "ACCELERATE_MIXED_PRECISION", "LOCAL_RANK", "RANK", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)


def check_refused(recipe: Any, flags: list[str], message: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Check that the command ends with exit code 2, exactly the line `message`, and no file or folder.

    Where the data show what is wrong, their reading may have been told before.
    """
    Path("r.json").write_text(recipe if isinstance(recipe, str) else json.dumps(recipe), encoding="utf-8")
    before = sorted(Path().rglob("*"))
    with pytest.raises(SystemExit) as stopped:
        main(["r.json", *flags])
    captured = capfd.readouterr()
    assert captured.err == f"error: {message}\n"
    assert [line for line in captured.out.splitlines() if not line.startswith(("Reading ", "Decontam"))] == []
    assert stopped.value.code == 2
    assert sorted(Path().rglob("*")) == before


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
        "r.json: training.evaluation_strategy: unknown key; it is called 'eval_strategy' (section 'training')",
    ),
    ({"model": {"learning_rate": 1e-3}}, "r.json: model.learning_rate: unknown key; it belongs in section 'training'"),
    ({"training": {"vocab_size": 900}}, "r.json: training.vocab_size: unknown key; it belongs in section 'tokenizer'"),
    (
        {"tokenizer": {"qqqq": 1}},
        "r.json: tokenizer.qqqq: unknown key; section 'tokenizer' has tokenizer, algorithm, vocab_size",
    ),
    # the curriculum
    (
        {"curriculum": {"curriculum": "lenght"}},
        'r.json: curriculum.curriculum = "lenght": expected one of none, length, morphology, lexical, random; did '
        "you mean 'length'?",
    ),
    (
        {"curriculum": {"curriculum": "length", "stage_epochs": [1, 0]}, "training": {"num_train_epochs": 1}},
        "r.json: curriculum.stage_epochs = 0: expected at least 1",
    ),
    (
        {"curriculum": {"curriculum": "length", "stage_epochs": [2, 2]}},
        "r.json: training.num_train_epochs = 10.0 (default) is not the sum of curriculum.stage_epochs = [2, 2]:"
        " set it to 4, or change the stages",
    ),
    (
        {"curriculum": {"stage_epochs": [5, 5]}},
        'r.json: curriculum.stage_epochs = [5, 5] has no effect with curriculum.curriculum = "none" (default): '
        "choose a curriculum, or leave stage_epochs out",
    ),
    (
        {"curriculum": {"curriculum": "length", "pacing": "stages"}},
        'r.json: curriculum.pacing = "stages": expected one of staged, cumulative, competence; did you mean '
        "'staged'?",
    ),
    (
        {"curriculum": {"pacing": "cumulative"}},
        'r.json: curriculum.pacing = "cumulative" has no effect with curriculum.curriculum = "none" (default): choose '
        "a curriculum, or leave pacing out",
    ),
    (
        {"curriculum": {"competence_epochs": 2.0}},
        'r.json: curriculum.competence_epochs = 2.0 has no effect with curriculum.curriculum = "none" (default): '
        "choose a curriculum, or leave competence_epochs out",
    ),
    (
        {"curriculum": {"curriculum": "lexical", "pacing": "cumulative", "competence_epochs": 2.0}},
        'r.json: curriculum.competence_epochs = 2.0 has no effect with curriculum.pacing = "cumulative": set pacing to '
        "competence, or leave competence_epochs out",
    ),
    (
        {"curriculum": {"curriculum": "lexical", "pacing": "competence", "stage_epochs": [5, 5]}},
        'r.json: curriculum.stage_epochs = [5, 5] has no effect with curriculum.pacing = "competence": set pacing to '
        "staged or cumulative, or leave stage_epochs out",
    ),
    (
        {"curriculum": {"curriculum": "lexical", "pacing": "competence"}, "training": {"num_train_epochs": 4.5}},
        "r.json: curriculum.competence_epochs = 5.0 (default) is more than training.num_train_epochs = 4.5: the "
        "hardest blocks would never be in reach: lower it to 4.5 or less, or train longer",
    ),
    (
        {"curriculum": {"curriculum": "lexical", "pacing": "competence", "competence_epochs": 0}},
        "r.json: curriculum.competence_epochs = 0.0: expected more than 0",
    ),
    (
        {"curriculum": {"curriculum": "length", "pacing": "cumulative"}},
        "r.json: training.num_train_epochs = 10.0 (default) is not 3 + 8 + 9, as curriculum.stage_epochs = [3, 4, 3] "
        '(default) and curriculum.pacing = "cumulative" ask for, where a pass over n stages takes n epochs: set it to '
        "20, or change the stages",
    ),
    (
        {"curriculum": {"curriculum": "length", "stage_epochs": []}},
        "r.json: curriculum.stage_epochs is empty: give the epochs of each stage",
    ),
    (
        {"curriculum": {"curriculum": "length"}, "training": {"global_batch_size": 1}},
        'r.json: training.global_batch_size = 1 with curriculum.curriculum = "length": a stage that is a block '
        "shorter than the others would have a step without loss: take 2 or more",
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
    ('{"training": {"learning_rate": 1e999}}', "r.json: 1e999 is past the range of a number"),
    (
        {"training": {"gradient_accumulation_steps": 0}},
        "r.json: training.gradient_accumulation_steps = 0: expected at least 1",
    ),
    ({"training": {"num_train_epochs": 0}}, "r.json: training.num_train_epochs = 0.0: expected more than 0"),
    ({"training": {"adam_beta1": 1}}, "r.json: training.adam_beta1 = 1.0: expected at least 0 and less than 1"),
    ({"training": {"milestones": [1000, 0]}}, "r.json: training.milestones = 0: expected at least 1"),
    ({"training": {"milestones": 10**6}}, "r.json: training.milestones = 1000000: expected true or false or a list"),
    ({"training": {"milestones": ["1M"]}}, 'r.json: training.milestones: "1M" in the list: expected a whole number'),
    ({"training": {"seed": -1}}, "r.json: training.seed = -1: expected at least 0 and at most 4294967295"),
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
        "r.json: model.architecture = \"gpt3\": expected one of gpt2, llama, deberta-v2; did you mean 'gpt2'?",
    ),
    ({"model": {"architecture": "zzz"}}, 'r.json: model.architecture = "zzz": expected one of gpt2, llama, deberta-v2'),
    (
        {"training": {"precision": "tf32"}},
        "r.json: training.precision = \"tf32\": expected one of auto, fp32, bf16, fp16; did you mean 'fp32'?",
    ),
    (
        {"training": {"eval_strategy": "sometimes"}},
        'r.json: training.eval_strategy = "sometimes": expected one of no, steps, epoch',
    ),
    (
        {"evaluation": {"tasks": ["hindi_pair_pud"]}},
        "r.json: evaluation.tasks: unknown task 'hindi_pair_pud'; did you mean 'hindi_pairs_pud'?; " + OR_PATH,
    ),
    (
        {"evaluation": {"tasks": ["nowhere/pairs.tsv"]}},
        f"r.json: evaluation.tasks: there is no 'nowhere/pairs.tsv'; a task is one of {', '.join(TASKS)}; {OR_PATH}",
    ),
    (
        {"evaluation": {"tasks": ["r.json"]}},
        f"r.json: evaluation.tasks: 'r.json' is no task; a task is one of {', '.join(TASKS)}; {OR_PATH}",
    ),
    (
        {"evaluation": {"tasks": ["hindi_pairs_pud", "hindi_pairs_pud"]}},
        "r.json: evaluation.tasks: 'hindi_pairs_pud' is the name of two tasks: rename the file, or leave one out",
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
        "r.json: corpus.sources: max_words = 0: expected at least 1",
    ),
    (
        {"corpus": {"sources": [{"path": "x", "max_words": True}]}},
        "r.json: corpus.sources: max_words = true: expected a whole number",
    ),
    (
        {"corpus": {"sources": [{"path": "x", "sample_by": "lines"}]}},
        'r.json: corpus.sources: sample_by = "lines": expected one of line, paragraph, document; '
        "did you mean 'line'?",
    ),
    (
        {"corpus": {"sources": [{"path": "x", "weight": "2"}]}},
        'r.json: corpus.sources: weight = "2": expected a number; write it without quotes',
    ),
    (
        {"corpus": {"sources": [{"path": "x", "weight": 0}]}},
        "r.json: corpus.sources: weight = 0.0: expected more than 0",
    ),
    (
        {"corpus": {"sources": [{"path": "x", "streaming": True}]}},
        'r.json: corpus.sources: {"path": "x", "streaming": true}: streaming goes with hub_id: leave it out',
    ),
    (
        {"corpus": {"sources": [{"path": "x", "weight": 1}]}},
        "r.json: corpus.sources: weights share out a budget: give max_words or max_bytes too, or leave the weights out",
    ),
    (
        {"corpus": {"sources": [{"path": "x", "weight": 1}, {"path": "y"}], "max_words": 9}},
        "r.json: corpus.sources: source 'y' has no weight, but 'x' has one: give every source a weight or a max_words",
    ),
    (
        {"corpus": {"max_words": 9, "max_bytes": 9}},
        "r.json: corpus.max_words = 9 and corpus.max_bytes = 9 are one budget in two units: leave one out",
    ),
    (
        {"corpus": {"max_document_words": 300, "min_words": 90}},
        "r.json: corpus.max_document_words = 300 is less than 4 times corpus.min_words = 90: a split would leave "
        "parts to drop: raise it, or lower min_words",
    ),
    ({"corpus": {"max_document_words": 5}}, "r.json: corpus.max_document_words = 5: expected at least 100"),
    (
        {"corpus": {"near_duplicate_threshold": 1.5}},
        "r.json: corpus.near_duplicate_threshold = 1.5: expected more than 0 and at most 1",
    ),
    # what a library would refuse later and less clearly
    (
        {"training": {"logging_steps": 2.5}},
        "r.json: training.logging_steps = 2.5: expected whole steps, or a share of all steps below 1",
    ),
    (
        {"training": {"gradient_checkpointing_kwargs": {"use_reentrant": "x"}}},
        'r.json: training.gradient_checkpointing_kwargs.use_reentrant = "x": expected true or false',
    ),
    (
        {"training": {"gradient_checkpointing_kwargs": {"use_reentrant": True, "debug": True}}},
        "r.json: training.gradient_checkpointing_kwargs: torch takes debug only with use_reentrant false: leave one "
        "out",
    ),
    (
        {"model": {"mask_probability": 0.3}},
        'r.json: model.mask_probability = 0.3 has no effect with model.architecture = "gpt2" (default): choose '
        "deberta-v2, or leave mask_probability out",
    ),
    (
        {"model": {"architecture": "deberta-v2", "mask_probability": 1.0}},
        "r.json: model.mask_probability = 1.0: expected more than 0 and less than 1",
    ),
    (
        {"model": {"architecture": "deberta-v2", "model_config": {"position_bucket": 8}}},
        "r.json: model.model_config: DebertaV2Config has no field 'position_bucket'; did you mean 'position_buckets'?",
    ),
    (
        {"model": {"architecture": "deberta-v2", "model_config": {"num_attention_heads": 7}}},
        "r.json: model.model_config: hidden_size 768 (default) is no multiple of num_attention_heads 7: change one of "
        "them",
    ),
    *(
        (
            {"model": {"architecture": "deberta-v2", "model_config": settings}},
            f"r.json: model.model_config.{message}",
        )
        for settings, message in (
            ({"pos_att_type": ["c2p", "p2p"]}, 'pos_att_type = ["c2p", "p2p"]: unknown \'p2p\'; there are c2p, p2c'),
            ({"pos_att_type": "c2p,p2c"}, "pos_att_type = \"c2p,p2c\": unknown 'c2p,p2c'; there are c2p, p2c"),
            (
                {"norm_rel_ebd": "layernorm"},
                "norm_rel_ebd = \"layernorm\": unknown 'layernorm'; there are layer_norm, none",
            ),
            ({"position_buckets": 1}, "position_buckets = 1: expected 2 or more, or -1 for none"),
            (
                {"relative_attention": False},
                "relative_attention = false leaves the model without positions: set position_biased_input to true, or "
                "leave relative_attention out",
            ),
            (
                {"pos_att_type": []},
                "pos_att_type = [] leaves the model without positions: set position_biased_input to true, or leave "
                "pos_att_type out",
            ),
            (
                {"relative_attention": False, "position_biased_input": True, "position_buckets": 8},
                "position_buckets = 8 has no effect with relative_attention false: leave one of them out",
            ),
            ({"conv_kernel_size": 4}, "conv_kernel_size = 4: expected an odd number, or 0 for no convolution"),
            (
                {"conv_groups": 2},
                "conv_groups = 2 has no effect with conv_kernel_size 0: set conv_kernel_size to 3, or leave "
                "conv_groups out",
            ),
            (
                {"conv_kernel_size": 3, "conv_groups": 5},
                "conv_groups = 5 is no divisor of hidden_size 768: change one",
            ),
        )
    ),
    (
        {
            "model": {"architecture": "deberta-v2"},
            "training": {"dataloader_num_workers": 1, "dataloader_persistent_workers": True},
        },
        'r.json: training.dataloader_persistent_workers = true contradicts model.architecture = "deberta-v2": workers '
        "that outlive an epoch would repeat its masks: leave it out",
    ),
    (
        {"model": {"model_config": {"model_type": "llama"}}},
        'r.json: model.model_config.model_type = "llama": model.architecture says gpt2: leave it out',
    ),
    (
        {"training": {"fsdp": True}},
        "r.json: training.fsdp = true needs several processes: start with accelerate launch or torchrun, or leave it "
        "out",
    ),
    (
        {"training": {"report_to": ["none", "wandb"]}},
        "r.json: training.report_to: 'none' stands alone: leave it out, or the trackers",
    ),
    (
        {"curriculum": {"curriculum": "length", "stage_epochs": [True]}},
        "r.json: curriculum.stage_epochs: true in the list: expected a whole number",
    ),
    # contradictions
    (
        {"corpus": {"validation_fraction": 0.5, "test_fraction": 0.5}},
        "r.json: corpus.validation_fraction = 0.5 and corpus.test_fraction = 0.5 leave nothing to train on: lower one",
    ),
    (
        {"training": {"early_stopping_patience": 2, "eval_strategy": "no", "load_best_model_at_end": False}},
        'r.json: training.early_stopping_patience = 2 needs evaluations, but training.eval_strategy = "no": set'
        " eval_strategy to steps or epoch, or leave early_stopping_patience out",
    ),
    # what the training arguments themselves refuse
    (
        {"training": {"global_batch_size": 10, "per_device_train_batch_size": 4}},
        "r.json: training.global_batch_size, training.per_device_train_batch_size: global_batch_size 10 does "
        "not equal a whole number of 1 process x per_device_train_batch_size 4: set global_batch_size to a "
        "multiple of 4",
    ),
    (
        {
            "training": {
                "global_batch_size": 8,
                "per_device_train_batch_size": 4,
                "gradient_accumulation_steps": 4,
            }
        },
        "r.json: training.global_batch_size, training.per_device_train_batch_size, "
        "training.gradient_accumulation_steps: global_batch_size 8 does not equal a whole number of 1 process x"
        " per_device_train_batch_size 4 x gradient_accumulation_steps 4: set global_batch_size to 16, or leave "
        "one of the other two out",
    ),
    (
        {"training": {"bf16": True, "precision": "fp32"}},
        'r.json: training.precision = "fp32" contradicts training.bf16 = true: leave one of them out',
    ),
    (
        {"training": {"precision": "fp16", "use_cpu": True}},
        'r.json: training.precision = "fp16" needs a CUDA GPU, and training.use_cpu = true: take auto, bf16 or fp32',
    ),
    (
        {"training": {"tf32": True, "use_cpu": True}},
        "r.json: training.tf32 = true needs a CUDA GPU, and training.use_cpu = true: leave it out",
    ),
    (
        {"training": {"ddp_backend": "gloo"}},
        'r.json: training.ddp_backend = "gloo" needs several processes: start with accelerate launch or torchrun, or '
        "leave it out",
    ),
    (
        {"training": {"deepspeed": "none.json"}},
        'r.json: training.deepspeed = "none.json": cannot read the file: No such file or directory',
    ),
    (
        {"training": {"deepspeed": {}}},
        "r.json: training.deepspeed = {}: expected an object of settings, or the path of a JSON file with one",
    ),
    (
        {"model": {"architecture": "llama", "model_config": {"rope_theta": 1e4}}},
        "r.json: model.model_config.rope_theta = 10000.0: transformers 5 takes it as "
        '{"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}',
    ),
    (
        {"model": {"architecture": "llama", "model_config": {"rope_parameters": "x"}}},
        'r.json: model.model_config.rope_parameters = "x": expected an object such as {"rope_type": "default", '
        '"rope_theta": 10000.0}',
    ),
    (
        {"training": {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 1.0}}},
        "r.json: training.lr_scheduler_kwargs.min_lr = 1.0: expected less than learning_rate 0.0003",
    ),
    (
        {"training": {"lr_scheduler_type": "greedy", "warmup_steps": 20}},
        'r.json: training.warmup_steps = 20.0 has no effect with training.lr_scheduler_type = "greedy": take '
        "constant_with_warmup, or leave warmup_steps out",
    ),
    (
        {"model": {"architecture": "llama", "model_config": {"rope_parameters": {"rope_type": "yarn"}}}},
        'r.json: model.model_config.rope_parameters.rope_type = "yarn": expected one of default',
    ),
    (
        {"model": {"architecture": "llama", "model_config": {"rope_parameters": {"rope_type": "default"}}}},
        'r.json: model.model_config.rope_parameters = {"rope_type": "default"}: rope_theta must be given',
    ),
    (
        {"model": {"architecture": "llama", "model_config": {"head_dim": 7}}},
        "r.json: model.model_config: heads of 7 dimensions cannot be rotated in pairs (RoPE): make them even",
    ),
    (
        {"training": {"lr_scheduler_type": "liner"}},
        'r.json: training.lr_scheduler_type = "liner": expected one of linear, cosine, cosine_with_restarts, '
        "polynomial, constant, constant_with_warmup, inverse_sqrt, reduce_lr_on_plateau, cosine_with_min_lr, "
        "cosine_warmup_with_min_lr, warmup_stable_decay, greedy; did you mean 'linear'?",
    ),
    (
        {"training": {"optim": "adamw_fused"}},
        "r.json: training.optim = \"adamw_fused\": expected one of 41 names; did you mean 'adamw_torch_fused'?",
    ),
    (
        {"training": {"eval_strategy": "steps", "eval_steps": 10}},
        'r.json: training.save_strategy = "epoch" (default) contradicts training.eval_strategy = "steps": the '
        "best model is loaded from a checkpoint of its evaluation; set save_strategy to steps or best, or "
        "load_best_model_at_end to false",
    ),
    (
        {"training": {"eval_strategy": "steps", "eval_steps": 10, "save_strategy": "steps", "save_steps": 15}},
        "r.json: training.save_steps = 15.0 is no multiple of training.eval_steps = 10.0, the steps between "
        "evaluations: the best model is loaded from a checkpoint of its evaluation; make it one, or set "
        "save_strategy to best or load_best_model_at_end to false",
    ),
    # keys of other toolkits, and things in the wrong place
    (
        {"training": {"batch_size": 3}},
        "r.json: training.batch_size: unknown key; it is called 'global_batch_size' (section 'training')",
    ),
    ({"learning_rate": 1e-3}, "r.json: unknown section 'learning_rate'; it is a key of section 'training'"),
    ({"model": {"training": {}}}, "r.json: model.training: unknown key; it is a section of its own"),
    ({"training": {"overwrite": True}}, "r.json: training.overwrite: unknown key; it is the flag --overwrite"),
    # the model
    (
        {"model": {"model_config": {"n_positions": 64}}},
        "r.json: model.model_config.n_positions = 64: model.block_size = 512 (default) is longer: lower "
        "block_size to 64, or leave n_positions out",
    ),
    (
        {"model": {"architecture": "llama", "block_size": 32, "model_config": {"max_position_embeddings": 16}}},
        "r.json: model.model_config.max_position_embeddings = 16: model.block_size = 32 is longer: lower "
        "block_size to 16, or leave max_position_embeddings out",
    ),
    (
        {"model": {"model_config": {"n_layers": 4}}},
        "r.json: model.model_config: GPT2Config has no field 'n_layers'; did you mean 'n_layer'?",
    ),
    (
        {"model": {"model_config": {"n_layer": "4"}}},
        'r.json: model.model_config.n_layer = "4": expected a whole number; write it without quotes',
    ),
    (
        {"model": {"model_config": {"n_embd": 64, "num_attention_heads": 7}}},
        "r.json: model.model_config: n_embd 64 is no multiple of n_head 7: change one of them",
    ),
    (
        {"model": {"architecture": "llama", "model_config": {"num_attention_heads": 7}}},
        "r.json: model.model_config: hidden_size 768 (default) is no multiple of num_attention_heads 7: change one of "
        "them",
    ),
    (
        {"model": {"architecture": "llama", "model_config": {"rms_norm_eps": None}}},
        "r.json: model.model_config.rms_norm_eps = null: expected a number",
    ),
    (
        {"model": {"model_config": {"summary_type": "x", "scale_attn_weights": 1}}},
        "r.json: model.model_config.scale_attn_weights = 1: expected true or false",
    ),
    *[
        (
            {"model": {"model_config": {name: value}}},
            f"r.json: model.model_config.{name} = {value}: expected at least 1",
        )
        for name, value in (("n_head", 0), ("n_embd", -32), ("n_inner", -5), ("n_layer", -1))
    ],
    (
        {
            "model": {
                "architecture": "llama",
                "model_config": {"num_attention_heads": 4, "num_key_value_heads": 3},
            }
        },
        "r.json: model.model_config: num_attention_heads 4 is no multiple of num_key_value_heads 3: change one of them",
    ),
    # precision and batch
    (
        {"training": {"bf16": True, "fp16": True}},
        "r.json: training.fp16 = true contradicts training.bf16 = true: keep one, or set precision instead",
    ),
    # repacking
    (
        {"model": {"repack": True}, "curriculum": {"curriculum": "length"}},
        'r.json: model.repack = true has no effect with curriculum.curriculum = "length": set curriculum to '
        "none, or leave repack out",
    ),
    (
        {
            "model": {"repack": True},
            "training": {"dataloader_num_workers": 2, "dataloader_persistent_workers": True},
        },
        "r.json: model.repack = true contradicts training.dataloader_persistent_workers = true: such workers "
        "stay at the blocks of their first epoch: leave one of them out",
    ),
    # averaged weights
    ({"training": {"ema_decay": 1.0}}, "r.json: training.ema_decay = 1.0: expected more than 0 and less than 1"),
    (
        {"training": {"ema_decay": 0.9, "deepspeed": "zero.json"}},
        'r.json: training.ema_decay = 0.9 contradicts training.deepspeed = "zero.json", whose sharded checkpoints '
        "would not hold the averages: leave one of them out",
    ),
    # evaluation, checkpoints, length
    (
        {"training": {"save_strategy": "no"}},
        'r.json: training.save_strategy = "no" contradicts training.eval_strategy = "epoch" (default): the best'
        " model is loaded from a checkpoint of its evaluation; set save_strategy to epoch or best, or "
        "load_best_model_at_end to false",
    ),
    (
        {"training": {"save_strategy": "best", "eval_strategy": "no"}},
        'r.json: training.save_strategy = "best" needs evaluations, but training.eval_strategy = "no": set '
        "eval_strategy to steps or epoch, or leave save_strategy out",
    ),
    (
        {"training": {"load_best_model_at_end": True, "eval_strategy": "no"}},
        'r.json: training.load_best_model_at_end = true needs evaluations, but training.eval_strategy = "no": '
        "set eval_strategy to steps or epoch, or leave load_best_model_at_end out",
    ),
    (
        {"training": {"greater_is_better": True}},
        'r.json: training.greater_is_better = true contradicts training.metric_for_best_model = "loss" '
        "(default), of which less is better: leave it out",
    ),
    (
        {"training": {"metric_for_best_model": None}},
        "r.json: training.metric_for_best_model = null: the evaluations must be compared by loss or perplexity: "
        "leave it out",
    ),
    ({"training": {"max_steps": 0}}, "r.json: training.max_steps = 0: expected at least 1, or -1 for num_train_epochs"),
    # keys without effect
    (
        {"training": {"max_steps": 5, "num_train_epochs": 3}},
        "r.json: training.num_train_epochs = 3.0 has no effect with training.max_steps = 5: set max_steps to "
        "-1, or leave num_train_epochs out",
    ),
    (
        {"tokenizer": {"tokenizer": "x", "vocab_size": 700}},
        'r.json: tokenizer.vocab_size = 700 has no effect with tokenizer.tokenizer = "x": set tokenizer to null'
        " to train one, or leave vocab_size out",
    ),
    (
        {"training": {"lr_scheduler_type": "constant", "warmup_steps": 7}},
        'r.json: training.warmup_steps = 7.0 has no effect with training.lr_scheduler_type = "constant": take '
        "constant_with_warmup, or leave warmup_steps out",
    ),
    (
        {"training": {"eval_steps": 5}},
        'r.json: training.eval_steps = 5.0 has no effect with training.eval_strategy = "epoch" (default): set '
        "eval_strategy to steps, or leave eval_steps out",
    ),
    (
        {"training": {"run_name": "x"}},
        'r.json: training.run_name = "x" has no effect with training.report_to = "none" (default): name a '
        "tracker in report_to, or leave run_name out",
    ),
    (
        {"training": {"dataloader_prefetch_factor": 2}},
        "r.json: training.dataloader_prefetch_factor = 2 has no effect with training.dataloader_num_workers = 0"
        " (default): set dataloader_num_workers to 1 or more, or leave dataloader_prefetch_factor out",
    ),
    # trackers and packages
    (
        {"training": {"report_to": "wandbb"}},
        "r.json: training.report_to: unknown tracker 'wandbb'; did you mean 'wandb'?",
    ),
    ({"training": {"report_to": None}}, "r.json: training.report_to = null: expected text or a list"),
    (
        {"training": {"use_liger_kernel": True}},
        "r.json: training.use_liger_kernel = true needs the package liger_kernel, which is not installed: install it, "
        "or leave use_liger_kernel out",
    ),
    (
        {"training": {"torch_compile_backend": "inducter"}},
        "r.json: training.torch_compile_backend = \"inducter\": did you mean 'inductor'?",
    ),
    # optimizers
    (
        {"training": {"optim": "adamw_torch_8bit"}},
        'r.json: training.optim = "adamw_torch_8bit" needs the package torchao, which is not installed: install it, or '
        "leave optim out",
    ),
    (
        {"training": {"optim": "stable_adamw"}},
        'r.json: training.optim = "stable_adamw" needs the package torch-optimi, which is not installed: install it, '
        "or leave optim out",
    ),
    (
        {"training": {"optim": "sgd", "optim_args": "foo"}},
        "r.json: training.optim_args = \"foo\": expected key=value pairs between commas, got 'foo'",
    ),
    (
        {"training": {"optim": "sgd", "optim_args": "momentum=0.9,foo=1"}},
        "r.json: training.optim_args = \"momentum=0.9,foo=1\": sgd reads no 'foo'; there are momentum, dampening, "
        "weight_decay, nesterov",
    ),
    (
        {"training": {"optim": "rmsprop", "optim_args": "alpha=x"}},
        'r.json: training.optim_args: alpha = "x": expected a number',
    ),
    (
        {"training": {"optim_args": "foo=1"}},
        'r.json: training.optim_args = "foo=1" has no effect with optim = "adamw_torch_fused", which reads none: leave '
        "optim_args out",
    ),
    (
        {"training": {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrent": False}}},
        "r.json: training.gradient_checkpointing_kwargs: unknown key 'use_reentrent'; did you mean 'use_reentrant'?",
    ),
    # schedules
    (
        {"training": {"lr_scheduler_type": "cosine_with_min_lr"}},
        "r.json: training.lr_scheduler_kwargs = null: cosine_with_min_lr needs one of min_lr and min_lr_rate",
    ),
    (
        {"training": {"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"num_cycles": "2"}}},
        'r.json: training.lr_scheduler_kwargs.num_cycles = "2": expected a number; write it without quotes',
    ),
    (
        {
            "training": {
                **{"lr_scheduler_type": "warmup_stable_decay", "max_steps": 100},
                "lr_scheduler_kwargs": {"num_decay_steps": 95},
            }
        },
        'r.json: training.lr_scheduler_kwargs = {"num_decay_steps": 95}: 10 steps '
        "of warmup, -5 stable ones and 95 of decay are not the 100 of the run: leave num_stable_steps out, and "
        "lower num_decay_steps where it is too much",
    ),
    (
        {
            "training": {
                "lr_scheduler_type": "warmup_stable_decay",
                "lr_scheduler_kwargs": {"num_decay_steps": 20, "num_stable_steps": 70},
            }
        },
        'r.json: training.lr_scheduler_kwargs = {"num_decay_steps": 20, "num_stable_steps": 70}: the steps of a run by '
        "epochs follow from its text, so that both phases cannot be given: leave num_stable_steps out, or set "
        "max_steps",
    ),
    (
        {
            "training": {
                "lr_scheduler_type": "warmup_stable_decay",
                "lr_scheduler_kwargs": {"decay_type": "square"},
            }
        },
        'r.json: training.lr_scheduler_kwargs.decay_type = "square": expected one of linear, cosine, 1-sqrt',
    ),
    (
        {"training": {"accelerator_config": {"split_batches": True}}},
        'r.json: training.accelerator_config = {"split_batches": true}: expected an object of non_blocking alone: the '
        "other settings would change the batch or the order of blocks",
    ),
    # what is refused altogether
    (
        {"training": {"do_train": True}},
        "r.json: training.do_train = true is refused: a run always trains and scores the test split, and eval_strategy "
        "says when it evaluates: leave it out",
    ),
    (
        {"training": {"hub_token": "SECRET"}},
        "r.json: training.hub_token is refused: a recipe is published with its results: log in with `hf auth login`, "
        "or set HF_TOKEN",
    ),
    # publishing
    (
        {"training": {"push_to_hub": True}},
        "r.json: training.push_to_hub: unknown key; it belongs in section 'reporting'",
    ),
    (
        {"reporting": {"push_to_hub": True}},
        "r.json: reporting.push_to_hub = true has no effect with reporting.hub_model_id = null (default): set "
        "hub_model_id to owner/name, or leave push_to_hub out",
    ),
    (
        {"reporting": {"hub_revision": "second"}},
        'r.json: reporting.hub_revision = "second" has no effect with reporting.hub_model_id = null (default): set '
        "hub_model_id to owner/name, or leave hub_revision out",
    ),
    (
        {"reporting": {"hub_model_id": "tiny"}},
        'r.json: reporting.hub_model_id = "tiny": expected owner/name: yourself or an organization, and the name of '
        "the model",
    ),
    (
        {"reporting": {"hub_model_id": "a/b", "hub_revision": "../c"}},
        'r.json: reporting.hub_revision = "../c": expected the name of a branch, of letters, digits and . _ - /',
    ),
    (
        {"reporting": {"hub_model_id": "a/b", "hub_revision": "chck_1M"}},
        'r.json: reporting.hub_revision = "chck_1M": such names are those of milestones and of the hub: choose another',
    ),
    (
        {"reporting": {"hub_model_id": "a/b", "publish_revisions": True}},
        "r.json: reporting.publish_revisions = true has no effect with training.milestones = false (default): ask for "
        "milestones, or leave publish_revisions out",
    ),
    (
        {
            "training": {"milestones": True},
            "reporting": {"hub_model_id": "a/b", "publish_revisions": True, "hub_revision": "c"},
        },
        'r.json: reporting.publish_revisions = true contradicts reporting.hub_revision = "c": the branches of '
        "milestones belong to the model on main: leave one of them out",
    ),
    # files
    (
        {"training": {"output_dir": "a/" + "x" * 300}},
        f"a/{'x' * 300} cannot be the run folder: File name too long: choose another --output_dir",
    ),
    (
        {"training": {"output_dir": "x" * 300}},
        f'r.json: training.output_dir = "{"x" * 300}": File name too long: choose another --output_dir',
    ),
    (
        {"training": {"output_dir": "r.json"}},
        'r.json: training.output_dir = "r.json": r.json is a file: choose another --output_dir',
    ),
    (
        {"training": {"output_dir": "r.json/deeper/run"}},
        'r.json: training.output_dir = "r.json/deeper/run": r.json is a file: choose another --output_dir',
    ),
    (
        {"training": {"resume_from_checkpoint": "x"}},
        'r.json: training.resume_from_checkpoint = "x": expected the .pt file of a checkpoint',
    ),
    (
        {"training": {"resume_from_checkpoint": "x.pt"}},
        'r.json: training.resume_from_checkpoint = "x.pt": there is no such file; its folder holds no checkpoint',
    ),
]


@pytest.mark.parametrize(("recipe", "message"), WRONG_RECIPES, ids=[message[:60] for _, message in WRONG_RECIPES])
def test_a_wrong_recipe_is_refused_in_one_line(recipe: Any, message: str, capfd: pytest.CaptureFixture[str]) -> None:
    """A wrong recipe ends with exit code 2 and one line of file, key, value and way out; nothing is written."""
    check_refused(recipe, [], message, capfd)


def test_what_only_the_model_shows_is_told_too(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is wrong for an architecture whose config class is not known here is found by trying it without weights."""
    monkeypatch.delitem(CONFIG_CLASSES, "llama")
    Path("r.json").write_text('{"model": {"architecture": "llama", "model_config": {"hidden_size": 36}}}')
    with pytest.raises(SystemExit) as stopped:
        main(["r.json"])
    assert stopped.value.code == 2
    error = capfd.readouterr().err
    assert error.startswith("error: r.json: model.model_config: LlamaConfig refuses a value: RuntimeError: ")
    assert error.count("\n") == 1


WRONG_FLAGS: list[tuple[list[str], str]] = [
    (["learning_rate", "1"], "command line: unexpected 'learning_rate'; flags are written --key value"),
    (["-l", "1"], "command line: unexpected '-l'; flags are written --key value"),
    (
        ["--hub_token", "SECRET"],  # before the command line could be written anywhere
        "command line: --hub_token is refused: a recipe is published with its results: log in with `hf auth login`, or "
        "set HF_TOKEN",
    ),
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
        "command line: --architecture = \"lama\": expected one of gpt2, llama, deberta-v2; did you mean 'llama'?",
    ),
    (
        ["--model_config", "{bad"],
        "command line: --model_config: line 1, column 2: not JSON: Expecting property name enclosed in double quotes",
    ),
    (["--model_config", "[1]"], "command line: --model_config = [1]: expected an object"),
    (["--tasks", "x", "y"], f"command line: --tasks: unknown task 'x'; there are {', '.join(TASKS)}; {OR_PATH}"),
    (
        ["--model_config", '{"a": 1, "a": 2}'],
        "command line: --model_config: key 'a' stands twice in one object; keep one",
    ),
    (["--model_config", '{"a": NaN}'], "command line: --model_config: NaN is no JSON; write a number"),
    (
        ["--model_config", "n_layer=2"],
        'command line: --model_config = "n_layer=2": expected an object as JSON in quotes',
    ),
    (
        ["--learn", "1"],
        "command line: --learn: unknown flag; did you mean 'learning_rate' (section 'training')?",
    ),
    (
        ["--training.seed", "1"],
        "command line: --training.seed: unknown flag; flags name no section: --seed",
    ),
    (["--overwrite", "true"], "command line: --overwrite takes no value, got true"),
    (["--overwrite", "--overwrite"], "command line: --overwrite is given twice; keep one"),
    (["--seed", "1", "--bf16", "--seed=1"], "command line: --seed is given twice; keep one"),
    (["--output_dir", "--seed", "1"], "command line: --output_dir: expected text or null"),
    (
        ["--max_steps", "5", "--num_train_epochs", "10"],
        "command line: --num_train_epochs = 10.0 has no effect with --max_steps = 5: set max_steps to -1, or "
        "leave num_train_epochs out",
    ),
    (
        ["--push_to_hub"],
        "command line: --push_to_hub = true has no effect with reporting.hub_model_id = null (default): set "
        "hub_model_id to owner/name, or leave push_to_hub out",
    ),
    (
        ["--hub_always_push"],
        "command line: --hub_always_push = true is refused: a run is published once, when its results are there: leave "
        "it out, and set push_to_hub",
    ),
]


# A recipe, flags over it, and a line that says which of the two each value came from.
BETWEEN_BOTH: list[tuple[Any, list[str], str]] = [
    (
        {"training": {"eval_strategy": "steps", "eval_steps": 10}},
        ["--save_strategy", "epoch"],
        'command line: --save_strategy = "epoch" contradicts training.eval_strategy = "steps" of r.json: the best '
        "model is loaded from a checkpoint of its evaluation; set save_strategy to steps or best, or "
        "load_best_model_at_end to false",
    ),
    (
        {"training": {"save_strategy": "epoch"}},
        ["--eval_strategy", "no", "--load_best_model_at_end", "true"],
        'command line: --load_best_model_at_end = true needs evaluations, but --eval_strategy = "no": set '
        "eval_strategy to steps or epoch, or leave load_best_model_at_end out",
    ),
    (
        {"corpus": {"validation_fraction": 0.3}},
        ["--test_fraction", "0.7"],
        "r.json: corpus.validation_fraction = 0.3 and --test_fraction = 0.7 leave nothing to train on: lower one",
    ),
    (
        {},
        ["--num_train_epochs", "3", "--curriculum", "length"],
        "command line: --num_train_epochs = 3.0 is not the sum of curriculum.stage_epochs = [3, 4, 3] (default): set "
        "it to 10, or change the stages",
    ),
    (
        {"curriculum": {"curriculum": "length", "pacing": "competence"}},
        ["--num_train_epochs", "2"],
        "r.json: curriculum.competence_epochs = 5.0 (default) is more than --num_train_epochs = 2.0: the hardest "
        "blocks would never be in reach: lower it to 2 or less, or train longer",
    ),
    (
        {"curriculum": {"curriculum": "length", "stage_epochs": [2, 1, 2]}},
        ["--pacing", "cumulative", "--num_train_epochs", "5"],
        "command line: --num_train_epochs = 5.0 is not 2 + 2 + 6, as curriculum.stage_epochs = [2, 1, 2] of r.json and "
        '--pacing = "cumulative" ask for, where a pass over n stages takes n epochs: set it to 10, or change the '
        "stages",
    ),
    (
        {"training": {"global_batch_size": 10}},
        ["--per_device_train_batch_size", "4"],
        "r.json: training.global_batch_size, --per_device_train_batch_size: global_batch_size 10 does not equal a "
        "whole number of 1 process x per_device_train_batch_size 4: set global_batch_size to a multiple of 4",
    ),
    (
        {"training": {"warmup_steps": 5, "lr_scheduler_type": "linear"}},
        ["--warmup_steps", "7", "--lr_scheduler_type", "constant"],
        'command line: --warmup_steps = 7.0 has no effect with --lr_scheduler_type = "constant": take '
        "constant_with_warmup, or leave warmup_steps out",
    ),
    (
        {"model": {"block_size": 64}},
        ["--model_config", '{"n_positions": 32}'],
        "command line: --model_config.n_positions = 32: model.block_size = 64 of r.json is longer: lower block_size to "
        "32, or leave n_positions out",
    ),
    (
        {},
        ["--sources", "[]"],
        "command line: --sources is empty: name at least one source, or leave it out for the bundled",
    ),
    (
        {},
        ["--output_dir", "r.json"],
        'command line: --output_dir = "r.json": r.json is a file: choose another --output_dir',
    ),
    ({}, ["--report_to", "wandbb"], "command line: --report_to: unknown tracker 'wandbb'; did you mean 'wandb'?"),
]


@pytest.mark.parametrize(
    ("recipe", "flags", "message"), BETWEEN_BOTH, ids=[" ".join(flags) for _, flags, _ in BETWEEN_BOTH]
)
def test_a_contradiction_names_where_each_value_came_from(
    recipe: Any, flags: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Of two keys that contradict each other each is named as a flag, as a key of the file, or as a default."""
    check_refused(recipe, flags, message, capfd)


@pytest.mark.parametrize(("flags", "message"), WRONG_FLAGS, ids=[" ".join(flags) for flags, _ in WRONG_FLAGS])
def test_a_wrong_flag_is_refused_in_one_line(flags: list[str], message: str, capfd: pytest.CaptureFixture[str]) -> None:
    """A wrong flag ends with exit code 2 and one line that names the command line, the flag and the way out."""
    check_refused({}, flags, message, capfd)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no recipe: accelerate launch -m hindi_babylm.run recipes/quickstart.json (see --help)"),
        (["--seed", "1"], "no recipe: accelerate launch -m hindi_babylm.run recipes/quickstart.json (see --help)"),
        (["smal.json"], "smal.json: cannot read the recipe: No such file or directory; did you mean small.json?"),
        (["small"], "small: cannot read the recipe: No such file or directory; did you mean small.json?"),
        (["bas.json"], "bas.json: cannot read the recipe: No such file or directory; did you mean recipes/base.json?"),
        (["zzz.json"], "zzz.json: cannot read the recipe: No such file or directory; shipped ones lie in recipes/"),
        (["recipes"], "recipes: cannot read the recipe: Is a directory; shipped ones lie in recipes/"),
        (["latin.json"], "latin.json: the recipe is not UTF-8 text: invalid start byte at byte 0"),
    ],
)
def test_a_recipe_that_cannot_be_read_is_refused(
    words: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """A recipe that is missing, a folder or no UTF-8 is refused with the name of the nearest file."""
    Path("recipes").mkdir()
    for name in ("small.json", "recipes/base.json"):
        Path(name).write_text("{}", encoding="utf-8")
    Path("latin.json").write_bytes(b"\xff{}")
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    assert capfd.readouterr().err == f"error: {message}\n"


def test_a_section_that_help_does_not_know(capfd: pytest.CaptureFixture[str]) -> None:
    """A slip after --help is told with the nearest section."""
    for words in (["--help", "trainig"], ["r.json", "--help", "trainig"]):
        with pytest.raises(SystemExit) as stopped:
            main(words)
        assert stopped.value.code == 2
        assert capfd.readouterr().err == "error: --help trainig: no such section; did you mean 'training'?\n"
    main(["model", "--help"])
    assert "usage:" in capfd.readouterr().out


def test_a_default_may_be_written_out(capfd: pytest.CaptureFixture[str]) -> None:
    """Every default of the training section, written into a recipe, is taken."""
    for name, key in known_keys().items():
        if (
            key.section == "training"
            and name not in REFUSED
            and isinstance(key.default, str | int | float | list | None)
        ):
            Path("r.json").write_text(json.dumps({"training": {name: key.default}}), encoding="utf-8")
            parse_recipe(Path("r.json"))


def test_a_batch_that_does_not_divide_by_the_processes(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The processes of the launcher count: their number must divide the global batch."""
    monkeypatch.setenv("WORLD_SIZE", "3")
    message = (
        "r.json: training.global_batch_size: global_batch_size 32 does not equal a whole number of 3 processes: set "
    )
    check_refused({}, [], message + "global_batch_size to a multiple of 3", capfd)


def test_masked_models_beside_sharding(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A masked model's head shares a parameter that FSDP does not take, so it is refused before data are read."""
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    message = (
        'command line: --architecture = "deberta-v2" contradicts FSDP of accelerate launch, which takes no parameter '
        "in two places, as a masked model's head has one: take a causal architecture, or start without sharding"
    )
    check_refused({}, ["--architecture", "deberta-v2"], message, capfd)


def test_averages_beside_the_sharding_of_the_launcher(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """FSDP that `accelerate launch` asks for is refused beside averaged weights as that of the recipe is."""
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    message = (
        "command line: --ema_decay = 0.999 contradicts FSDP of accelerate launch, whose sharded checkpoints would not "
        "hold the averages: leave one of them out"
    )
    check_refused({}, ["--ema_decay", "0.999"], message, capfd)


def test_documents_apart_in_an_architecture_of_ones_own(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Attention inside of documents is refused for an architecture that is not known to keep them apart."""
    monkeypatch.setitem(ARCHITECTURES, "opt", ARCHITECTURES["gpt2"])
    message = (
        'r.json: model.document_attention = true contradicts model.architecture = "opt", which is not known to keep '
        "documents apart: take gpt2 or llama, or leave it out"
    )
    check_refused({"model": {"document_attention": True, "architecture": "opt"}}, [], message, capfd)


def corpus_of(name: str, text: str) -> dict[str, Any]:
    """Write a file beside the recipe and return a recipe that reads it."""
    Path(name).write_text(text, encoding="utf-8")
    return {"corpus": {"sources": [{"path": name}]}, "evaluation": {"tasks": []}}


def test_data_that_cannot_be_trained_on(capfd: pytest.CaptureFixture[str]) -> None:
    """A missing file, a corpus without words, a missing column and too little text are refused in one line each."""
    kinds = f"{' '.join(FORMATS)} files (plain or .gz .xz .zst .bz2)"
    nothing = f"matches no readable file; a source is a file, a folder or a glob of {kinds}, or a dataset id of the hub"
    check_refused({}, ["--corpus", "./no.txt"], f"command line: --corpus: './no.txt' {nothing}", capfd)
    missing = {"corpus": {"sources": [{"path": "no.txt"}]}}
    check_refused(missing, [], f"r.json: corpus.sources: 'no.txt' {nothing}", capfd)

    message = "r.json: corpus.sources: 'blank.txt' is empty; mend it or leave it out"
    check_refused(corpus_of("blank.txt", " \n\n \n"), [], message, capfd)

    message = (
        "r.json: corpus.sources: source 'table.csv' has no column 'text'; it has body, id: name the right one with "
        '"text_column"'
    )
    check_refused(corpus_of("table.csv", "id,body\n1,राम\n"), [], message, capfd)

    message = (
        "r.json: model.block_size = 512 tokens: the train split has 87 words, fewer than one block: give more text, "
    )
    lines = "\n\n".join(f"राम घर {number}" for number in range(40))
    check_refused(corpus_of("few.txt", lines), [], message + "or lower it", capfd)


def test_a_tokenizer_that_cannot_be_opened(capfd: pytest.CaptureFixture[str]) -> None:
    """A folder that holds no tokenizer is named with the key of the recipe, or the flag, that gave it."""
    Path("empty").mkdir()
    corpus = {"sources": [{"bundled": "pratham_storyweaver"}]}
    for section, flags, place in (
        ({"tokenizer": "empty"}, [], "r.json: tokenizer.tokenizer"),
        ({}, ["--tokenizer", "empty"], "command line: --tokenizer"),
    ):
        Path("r.json").write_text(json.dumps({"corpus": corpus, "tokenizer": section}), encoding="utf-8")
        with pytest.raises(SystemExit) as stopped:
            main(["r.json", *flags])
        assert stopped.value.code == 2
        assert capfd.readouterr().err.startswith(f"error: {place}: cannot open 'empty': ")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        ("[]", "it is no JSON object"),
    ],
)
def test_a_run_folder_with_a_broken_recipe(content: str, reason: str, capfd: pytest.CaptureFixture[str]) -> None:
    """A run folder whose recipe.json cannot be read is refused with the two ways out."""
    Path("broken").mkdir()
    Path("broken/recipe.json").write_text(content, encoding="utf-8")
    Path("broken/.lock").touch()
    message = f"{Path('broken/recipe.json')} is not the recipe of a run: {reason}: choose another --output_dir, or "
    check_refused({}, ["--output_dir", "broken"], message + "--overwrite to start again", capfd)


@pytest.mark.parametrize(
    ("content", "flags", "unloaded"),
    [
        ("{", [], ALL_SLOW),
        ("{}", ["--seed", "1", "--seed", "2"], ALL_SLOW),
        ('{"model": {"dropuot": 0.1}}', [], ALL_SLOW),
        ('{"training": {"learning_rat": 3e-4}}', [], ALL_SLOW),
        ('{"training": {"learning_rate": "3e-4"}}', [], ALL_SLOW),
        ('{"training": {"lr_scheduler_type": "liner"}}', [], ALL_SLOW),
        ('{"training": {"early_stopping_patience": 1, "eval_strategy": "no"}}', [], ALL_SLOW),
        ('{"training": {"global_batch_size": 10, "per_device_train_batch_size": 4}}', [], ALL_SLOW),
        ('{"training": {"precision": "fp32", "bf16": true}}', [], ALL_SLOW),
        ('{"model": {"model_config": {"n_layers": 4}}}', [], ALL_SLOW),
        ('{"model": {"model_config": {"n_layer": "4"}}}', [], ALL_SLOW),
        ('{"model": {"model_config": {"n_head": 7}}}', [], ALL_SLOW),
        ('{"model": {"model_config": {"n_positions": 8}}}', [], ALL_SLOW),
        ('{"model": {"model_config": {"activation_function": "geluu"}}}', [], ALL_SLOW),
        ('{"model": {"architecture": "llama", "model_config": {"num_attention_heads": 7}}}', [], ALL_SLOW),
        ('{"training": {"report_to": "wandbb"}}', [], ALL_SLOW),
        ("{}", ["--output_dir", "r.json"], ALL_SLOW),
        ("{}", ["--dry_run", "--resume_from_checkpoint", "r.pt"], ALL_SLOW),
        ('{"training": {"precision": "fp16", "use_cpu": true}}', [], ALL_SLOW),
        ('{"training": {"lr_scheduler_kwargs": {"power": 2.0}}}', [], ALL_SLOW),
        ('{"training": {"optim": "sgd", "optim_args": "momentum=x"}}', [], ALL_SLOW),
        ('{"model": {"architecture": "deberta-v2", "model_config": {"pos_att_type": "c2c"}}}', [], ALL_SLOW),
        ('{"model": {"architecture": "deberta-v2", "model_config": {"conv_kernel_size": 2}}}', [], ALL_SLOW),
        ('{"training": {"optim": "galore_adamw"}}', [], ALL_SLOW),
        ('{"training": {"tf32": true, "use_cpu": true}}', [], ALL_SLOW),
        ('{"training": {"ddp_backend": "gloo"}}', [], ALL_SLOW),
        ('{"training": {"torch_compile_backend": "inducter"}}', [], ALL_SLOW),
    ],
)
def test_what_needs_no_data_is_told_before_the_slow_imports(
    content: str, flags: list[str], unloaded: list[str]
) -> None:
    """A wrong recipe is told before any library is imported."""
    Path("r.json").write_text(content, encoding="utf-8")
    code = (
        "import sys\n"
        "from hindi_babylm.run import main\n"
        "try:\n"
        f"    main(['r.json', *{flags}])\n"
        "except SystemExit as stop:\n"
        f"    print(stop.code, [name for name in {unloaded} if name in sys.modules])\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "2 []\n", done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert [path.name for path in Path().iterdir()] == ["r.json"]
