"""Arguments, trainer, checkpoints and optimizer, each against an independent computation."""

import inspect
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional
from torch.utils.data import Dataset
from transformers import (
    DebertaV2Config,
    DebertaV2ForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Trainer,
    TrainerCallback,
)
from transformers.optimization import get_scheduler
from transformers.pytorch_utils import Conv1D

from hindi_babylm.modeling import KEEP_DOCUMENTS_APART, deberta_v2_config
from hindi_babylm.packing import pack
from hindi_babylm.storage import UserError
from hindi_babylm.training.arguments import HindiTrainingArguments
from hindi_babylm.training.callbacks import MetricsFile
from hindi_babylm.training.checkpoint import copy_as_best, read_checkpoint, rotate_checkpoints, save_checkpoint
from hindi_babylm.training.machine import use_all_cores
from hindi_babylm.training.muon import MuonWithAdamW, build_muon
from hindi_babylm.training.specification import resolve_batch
from hindi_babylm.training.trainer import HindiLanguageModelTrainer
from tests.test_packing import EOS, handmade

pytestmark = pytest.mark.usefixtures("unreported")

VOCABULARY = 41
Make = Callable[..., HindiLanguageModelTrainer]


class Rows(Dataset[dict[str, torch.Tensor]]):
    """Random rows of 12 tokens, of which each predicts `lengths[i] - 1`."""

    def __init__(self, lengths: list[int], *, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.ids = torch.randint(0, VOCABULARY, (len(lengths), 12), generator=generator)
        self.labels = self.ids.clone()
        for row, length in enumerate(lengths):
            self.labels[row, length:] = -100

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.ids[index], "labels": self.labels[index]}


def tiny_model(architecture: str, *, seed: int = 0, dropout: float = 0.0) -> PreTrainedModel:
    """Return a model of two layers over a vocabulary of 41."""
    torch.manual_seed(seed)
    if architecture == "gpt2":
        return GPT2LMHeadModel(
            GPT2Config(
                vocab_size=VOCABULARY,
                n_positions=16,
                n_embd=16,
                n_layer=2,
                n_head=2,
                bos_token_id=0,
                eos_token_id=0,
                resid_pdrop=dropout,
                embd_pdrop=dropout,
                attn_pdrop=dropout,
            )
        )
    if architecture == "deberta-v2":
        sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
        config = deberta_v2_config(block_size=16, dropout=dropout, vocab_size=VOCABULARY, **sizes)
        assert isinstance(config, DebertaV2Config)
        return DebertaV2ForMaskedLM(config)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=16,
            bos_token_id=0,
            eos_token_id=0,
        )
    )


def mean_nll(model: PreTrainedModel, rows: Rows) -> float:
    """Return the token-weighted loss row by row, in float64, with no help from the Trainer."""
    total, count = 0.0, 0
    with torch.no_grad():
        for ids, labels in zip(rows.ids, rows.labels, strict=True):
            log_probabilities = functional.log_softmax(model.eval()(ids[None]).logits[0].double(), dim=-1)
            for position in range(1, len(ids)):
                if labels[position] != -100:
                    total -= log_probabilities[position - 1, ids[position]].item()
                    count += 1
    return total / count


def trained(trainer: HindiLanguageModelTrainer) -> PreTrainedModel:
    """Return the trainer's model."""
    assert isinstance(trainer.model, PreTrainedModel)
    return trainer.model


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Return a function that builds a trainer over 21 full training rows and 9 ragged validation rows."""

    def build(
        architecture: str = "gpt2",
        *,
        model: PreTrainedModel | None = None,
        train: Dataset[Any] | None = None,
        evaluate: Dataset[Any] | None = None,
        **arguments: Any,
    ) -> HindiLanguageModelTrainer:
        settings: dict[str, Any] = {
            "output_dir": str(tmp_path / "run"),
            "precision": "fp32",
            "global_batch_size": 4,
            "num_train_epochs": 2,
            "learning_rate": 1e-2,
        } | arguments
        return HindiLanguageModelTrainer(
            model or tiny_model(architecture),
            HindiTrainingArguments(**settings),
            train or Rows([12] * 21),
            evaluate or Rows([12, 3, 7, 2, 12, 5, 9, 4, 12], seed=1),
            callbacks=[MetricsFile(tmp_path / "metrics.jsonl")],
        )

    return build


@pytest.mark.parametrize("architecture", KEEP_DOCUMENTS_APART)
@pytest.mark.parametrize("accumulation", [1, 4])
def test_losses_are_those_of_documents_apart(make: Make, tmp_path: Path, architecture: str, accumulation: int) -> None:
    """With positions by document the first training loss and the validation loss are those of single documents."""
    documents = [[2 + (7 * number + place) % 20 for place in range(1 + number % 5)] for number in range(40)]
    blocks = pack(handmade(tmp_path, documents, [1] * 40), block_size=12, document_attention=True)
    count, model = len(blocks), tiny_model(architecture)
    flat = [token for document in documents for token in [*document, EOS]]
    starts = sorted({*(place for place, token in enumerate(flat) if token == EOS), *range(0, len(flat), 11)})
    total = 0.0
    for start, end in zip(starts, [*starts[1:], len(flat)], strict=True):
        row = flat[start : end + 1]  # up to the first token of the next segment, which its last one predicts
        if len(row) > 1:
            with torch.no_grad():
                logs = functional.log_softmax(model.eval()(torch.tensor([row[:-1]])).logits[0].double(), dim=-1)
            total -= sum(logs[place, token].item() for place, token in enumerate(row[1:]))
    trainer = make(
        model=model, train=blocks, evaluate=blocks, global_batch_size=accumulation * -(-count // accumulation),
        gradient_accumulation_steps=accumulation, num_train_epochs=1, eval_on_start=True,
    )  # fmt: skip
    trainer.train()
    first, loss = (
        next(event[name] for event in trainer.state.log_history if name in event) for name in ("eval_loss", "loss")
    )
    assert first == pytest.approx(total / (len(flat) - 1), abs=1e-6)
    assert loss == pytest.approx(total / (len(flat) - 1), abs=1e-5)


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
@pytest.mark.parametrize("lengths", [[12] * 11, [12, 3, 7, 2, 12, 5, 9, 4, 12, 6, 8]], ids=["full", "ragged"])
@pytest.mark.parametrize("batch_size", [1, 7, 32])
def test_eval_loss_does_not_depend_on_the_batch(
    make: Make, architecture: str, lengths: list[int], batch_size: int
) -> None:
    """eval_loss equals the token-by-token mean for every batch size, on full and on ragged rows."""
    rows = Rows(lengths, seed=3)
    trainer = make(architecture, evaluate=rows, per_device_eval_batch_size=batch_size)
    metrics = trainer.evaluate()
    expected = mean_nll(trained(trainer), rows)
    assert metrics["eval_loss"] == pytest.approx(expected, abs=1e-6)
    assert metrics["eval_perplexity"] == pytest.approx(math.exp(expected), rel=1e-6)


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_training_loss_counts_only_predicted_labels(make: Make, architecture: str) -> None:
    """The loss of a step is the NLL over shifted labels, for a model that declares its loss and one that does not."""
    rows = Rows([12, 2, 5, 3])
    trainer = make(architecture, train=rows, global_batch_size=4, num_train_epochs=1, learning_rate=1e-9)
    expected = mean_nll(tiny_model(architecture), rows)
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(expected, abs=1e-5)


def test_stock_trainer_has_the_trap_that_ours_avoids(make: Make, tmp_path: Path) -> None:
    """The stock Trainer still reports GPT-2's loss too low: when this fails, our mend can go."""
    from transformers import TrainingArguments, default_data_collator

    rows = Rows([12] * 4)
    stock = Trainer(
        tiny_model("gpt2"),
        TrainingArguments(
            output_dir=str(tmp_path),
            use_cpu=True,
            max_steps=1,
            per_device_train_batch_size=4,
            logging_steps=1,
            learning_rate=1e-9,
        ),
        train_dataset=rows,
        data_collator=default_data_collator,
    )
    stock.train()
    true = mean_nll(tiny_model("gpt2"), rows)
    assert stock.state.log_history[0]["loss"] == pytest.approx(true * 11 / 12, rel=1e-3)


@pytest.mark.parametrize("interval", [1, 3, 100])
def test_every_step_is_logged_whatever_the_interval(make: Make, tmp_path: Path, interval: int) -> None:
    """metrics.jsonl has each step once, in order, with its own loss, norm, rate and epoch, however rarely it is fed."""
    trainer = make(logging_steps=interval, seed=5)
    trainer.train()
    events = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    steps = [event for event in events if "loss" in event]
    assert [event["step"] for event in steps] == list(range(1, 13))
    assert [event["epoch"] for event in steps] == pytest.approx([step / 6 for step in range(1, 13)])
    assert [event["learning_rate"] for event in steps] == pytest.approx(
        [1e-2 * (1.0 if step == 1 else (12 - step + 1) / 11) if step > 1 else 0.0 for step in range(1, 13)]
    )
    reference = make(logging_steps=1, seed=5)
    reference.train()
    wanted = [entry for entry in reference.state.log_history if "loss" in entry]
    for name in ("loss", "grad_norm"):
        assert [event[name] for event in steps] == pytest.approx([entry[name] for entry in wanted], rel=1e-6)
    kinds = ["loss" if "loss" in event else "eval" if "eval_loss" in event else "end" for event in events]
    assert kinds == ["loss"] * 6 + ["eval"] + ["loss"] * 6 + ["eval"], "an evaluation must follow its steps"


def test_grad_norm_is_that_of_the_gradient_before_clipping(make: Make) -> None:
    """The logged norm of the first step equals the norm of a hand-made gradient, though clipping is far below it."""
    rows = Rows([12] * 4)
    trainer = make(train=rows, global_batch_size=4, num_train_epochs=1, max_grad_norm=1e-3)
    model = tiny_model("gpt2")
    loss = functional.cross_entropy(
        model(rows.ids).logits[:, :-1].reshape(-1, VOCABULARY), rows.labels[:, 1:].reshape(-1)
    )
    loss.backward()
    expected = torch.sqrt(sum((p.grad**2).sum() for p in model.parameters() if p.grad is not None))  # type: ignore[arg-type]
    trainer.train()
    assert trainer.state.log_history[0]["grad_norm"] == pytest.approx(expected.item(), rel=1e-5)


def test_the_update_is_that_of_the_clipped_gradient(make: Make) -> None:
    """One step of SGD moves every weight by rate x gradient x limit / norm, computed by hand."""
    rows, limit, rate = Rows([12] * 4), 0.05, 0.3
    model = tiny_model("gpt2")
    logits = model(rows.ids).logits[:, :-1]
    functional.cross_entropy(logits.transpose(1, 2), rows.labels[:, 1:]).backward()
    gradients = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    norm = math.sqrt(sum(float((gradient**2).sum()) for gradient in gradients.values()))
    assert norm > 10 * limit
    trainer = make(
        **{"train": rows, "max_steps": 1, "optim": "sgd", "max_grad_norm": limit},
        **{"learning_rate": rate, "weight_decay": 0.0, "eval_strategy": "no", "save_strategy": "no"},
    )
    trainer.train()
    for name, weight in trained(trainer).named_parameters():
        before = dict(tiny_model("gpt2").named_parameters())[name]
        torch.testing.assert_close(weight, before - rate * gradients[name] * limit / norm, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("muon", [None, 0.02])
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_matrices_are_decayed_and_the_run_says_how_many(
    make: Make, architecture: str, muon: float | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Weights of embeddings and linear maps are decayed, biases and norms are not, and the console has the counts."""
    trainer = make(architecture, max_steps=1, weight_decay=0.1, muon_learning_rate=muon)
    trainer.train()
    model = trained(trainer)
    kinds = (torch.nn.Embedding, torch.nn.Linear, Conv1D)
    every = {id(p): p for p in model.parameters()}
    matrices = {id(module.weight): module.weight for module in model.modules() if isinstance(module, kinds)}
    assert trainer.optimizer is not None
    decays = {id(p): group["weight_decay"] for group in trainer.optimizer.param_groups for p in group["params"]}
    assert decays == {key: 0.1 if key in matrices else 0.0 for key in every}
    count, total = sum(p.numel() for p in matrices.values()), sum(p.numel() for p in every.values())
    wanted = [
        f"Weight decay: 0.1 on {count:,} parameters ({len(matrices)} tensors), "
        f"not on {total - count:,} ({len(every) - len(matrices)})"
    ]
    if muon is not None:
        layers = [module.weight for module in model.modules() if isinstance(module, kinds[1:])]
        hidden = [weight for weight in layers if weight is not model.get_output_embeddings().weight]
        wanted.append(f"Muon: {sum(weight.numel() for weight in hidden):,} parameters ({len(hidden)} tensors)")
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith(("Weight decay", "Muon"))] == wanted


def test_metric_lists_have_an_entry_an_evaluation(make: Make) -> None:
    """trainer.metrics holds the specification's four lists: mean step loss, validation figures, learning rate."""
    trainer = make()
    trainer.train()
    steps = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    evaluations = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
    assert trainer.metrics["train_loss"] == pytest.approx([sum(steps[:6]) / 6, sum(steps[6:]) / 6])
    assert [entry["epoch_train_loss"] for entry in evaluations] == trainer.metrics["train_loss"]
    assert trainer.metrics["val_loss"] == [entry["eval_loss"] for entry in evaluations]
    assert trainer.metrics["perplexity"] == [entry["eval_perplexity"] for entry in evaluations]
    assert len(trainer.metrics["learning_rate"]) == 2


def test_metric_lists_go_by_epochs_without_evaluation(make: Make) -> None:
    """Without evaluations an entry stands for an epoch, its last steps included."""
    trainer = make(eval_strategy="no", save_strategy="no", load_best_model_at_end=False, logging_steps=4)
    trainer.train()
    steps = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert trainer.metrics["train_loss"] == pytest.approx([sum(steps[:6]) / 6, sum(steps[6:]) / 6])
    assert trainer.metrics["val_loss"] == []


@pytest.mark.parametrize("architecture", ["llama", "deberta-v2"])
def test_gradient_checkpointing_does_not_change_the_losses(make: Make, architecture: str) -> None:
    """The losses with recomputed activations equal those without."""
    losses = []
    for recompute in (False, True):
        trainer = make(architecture, gradient_checkpointing=recompute)
        trainer.train()
        assert trained(trainer).is_gradient_checkpointing is recompute
        losses.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


# Schedule -> its arguments, and its factor after a warmup of 3 of 30 steps, at so many steps after it.
SCHEDULES: dict[str, tuple[str, dict[str, Any] | None, Callable[[int], float]]] = {
    "linear": ("linear", None, lambda step: 1 - step / 27),
    "cosine": ("cosine", None, lambda step: (1 + math.cos(math.pi * step / 27)) / 2),
    "constant": ("constant_with_warmup", None, lambda step: 1.0),
    # The last fifth of the run decays, by half a cosine.
    "wsd": (
        "warmup_stable_decay",
        None,
        lambda step: 1.0 if step < 21 else (1 + math.cos(math.pi * (step - 21) / 6)) / 2,
    ),
    "wsd told": (
        "warmup_stable_decay",
        {"num_decay_steps": 9, "decay_type": "linear", "min_lr_ratio": 0.1},
        lambda step: 1.0 if step < 18 else 0.1 + 0.9 * (1 - (step - 18) / 9),
    ),
    "wsd stable": (
        "warmup_stable_decay",
        {"num_stable_steps": 25, "decay_type": "1-sqrt"},
        lambda step: 1.0 if step < 25 else 1 - math.sqrt((step - 25) / 2),
    ),
}


@pytest.mark.parametrize("muon", [None, 0.03])
@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_follow_their_closed_forms(make: Make, tmp_path: Path, name: str, muon: float | None) -> None:
    """Each warms up over a tenth of the steps and follows its formula, in every group, and after a resume."""
    schedule, arguments, factor = SCHEDULES[name]
    used: list[list[float]] = []

    class Rates(TrainerCallback):
        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            used.append([group["lr"] for group in kwargs["optimizer"].param_groups])

    steps = {"eval_strategy": "no", "save_strategy": "steps", "save_steps": 26, "load_best_model_at_end": False}
    settings = {"lr_scheduler_type": schedule, "lr_scheduler_kwargs": arguments, "muon_learning_rate": muon}
    low = (arguments or {}).get("min_lr_ratio", 0.0)  # of the warmup, too
    factors = [low + (1 - low) * step / 3 if step < 3 else factor(step - 3) for step in range(30)]
    for start in (0, 26):
        used.clear()
        trainer = make(**settings, **steps, max_steps=30, save_total_limit=9)
        trainer.add_callback(Rates())
        trainer.train(tmp_path / "run" / "checkpoints" / "checkpoint_step_26.pt" if start else None)
        rates = [entry["learning_rate"] for entry in trainer.state.log_history if "loss" in entry]
        assert rates == pytest.approx([1e-2 * each for each in factors], abs=1e-12)
        assert len(used) == 30 - start
        for groups, each in zip(used, factors[start:], strict=True):
            peaks = [1e-2, 1e-2] + ([] if muon is None else [muon])
            assert groups == pytest.approx([peak * each for peak in peaks], abs=1e-12)
        assert trainer.args.lr_scheduler_kwargs == arguments


@pytest.mark.parametrize("arguments", [{"num_decay_steps": 28}, {"num_decay_steps": 5, "num_stable_steps": 5}])
def test_phases_of_a_schedule_add_up(make: Make, arguments: dict[str, Any]) -> None:
    """A decay that does not fit beside the warmup, or phases of another length than the run, are refused."""
    trainer = make(lr_scheduler_type="warmup_stable_decay", lr_scheduler_kwargs=arguments, max_steps=30)
    with pytest.raises(UserError, match=r"^lr_scheduler_kwargs: 3 steps of warmup, .* are not the 30 of the run"):
        trainer.train()


@pytest.mark.parametrize(
    ("asked", "steps", "expected"), [(1000, 100_000, 1000), (1000, 300, 30), (0, 300, 0), (0.05, 300, 15), (7, 300, 7)]
)
def test_warmup_is_at_most_a_tenth_of_the_run(tmp_path: Path, asked: float, steps: int, expected: int) -> None:
    """warmup_steps is steps, or a share below 1, and never more than a tenth of the run."""
    arguments = HindiTrainingArguments(output_dir=str(tmp_path), warmup_steps=asked)
    assert arguments.get_warmup_steps(steps) == expected


def test_early_stopping_ends_the_run(make: Make) -> None:
    """A run whose validation loss does not improve stops after `early_stopping_patience` evaluations."""
    trainer = make(learning_rate=1e-30, weight_decay=0.0, num_train_epochs=9, early_stopping_patience=2)
    trainer.train()
    assert trainer.state.epoch == 3


def test_best_model_is_loaded_at_the_end(make: Make, tmp_path: Path) -> None:
    """The model after training is the one with the lowest validation loss, and checkpoint_best.pt holds it."""
    rows = Rows([12] * 6, seed=8)
    trainer = make(learning_rate=0.1, num_train_epochs=6, evaluate=rows)  # a rate at which random rows are memorised
    trainer.train()
    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert losses[-1] > min(losses), "the last evaluation must not be the best for this test to mean anything"
    assert mean_nll(trained(trainer), rows) == pytest.approx(min(losses), abs=1e-6)
    best = read_checkpoint(tmp_path / "run" / "checkpoints" / "checkpoint_best.pt")
    assert best["val_loss"] == min(losses)
    assert best["epoch"] == 1 + losses.index(min(losses))


def test_checkpoint_has_the_specification_s_keys(make: Make, tmp_path: Path) -> None:
    """A checkpoint opens with weights_only and restores model, optimizer and schedule by hand."""
    trainer = make("gpt2")
    trainer.train()
    path = tmp_path / "run" / "checkpoints" / "checkpoint_epoch_2.pt"
    checkpoint = torch.load(path, weights_only=True)
    assert set(checkpoint) >= {
        "epoch",
        "step",
        "model_state_dict",
        "optimizer_state_dict",
        "scheduler_state_dict",
        "train_loss",
        "val_loss",
        "perplexity",
        "config",
        "random_state",
    }
    assert (checkpoint["epoch"], checkpoint["step"]) == (2, 12)
    assert checkpoint["perplexity"] == pytest.approx(math.exp(checkpoint["val_loss"]))
    model = tiny_model("gpt2", seed=9)
    model.load_state_dict(checkpoint["model_state_dict"])
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in model.parameters() if p.ndim > 1]},
            {"params": [p for p in model.parameters() if p.ndim < 2]},
        ]
    )
    optimizer.load_state_dict(checkpoint["optimizer_state_dict"])
    assert optimizer.param_groups[0]["initial_lr"] == 1e-2
    assert checkpoint["scheduler_state_dict"]["last_epoch"] == 12


def test_rotation_keeps_the_newest_and_the_best(make: Make, tmp_path: Path) -> None:
    """save_total_limit counts numbered checkpoints; the best one stays whatever its age."""
    trainer = make(learning_rate=0.1, num_train_epochs=6, save_total_limit=2, evaluate=Rows([12] * 6, seed=8))
    trainer.train()
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == ["checkpoint_best.pt", "checkpoint_epoch_5.pt", "checkpoint_epoch_6.pt"]


def test_rotation_goes_by_age_and_not_by_name(tmp_path: Path) -> None:
    """The newest checkpoint stays whatever its name, and files that are no checkpoints of ours are left alone."""
    names = ("checkpoint_step_9.pt", "checkpoint_step_10.pt", "checkpoint_best.pt", "checkpoint_step_x.pt", "note")
    for age, name in enumerate(names):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (1e9 + age, 1e9 + age))
    rotate_checkpoints(tmp_path, limit=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint_best.pt",
        "checkpoint_step_10.pt",
        "checkpoint_step_x.pt",
        "note",
    ]


def test_best_copy_survives_its_origin(tmp_path: Path) -> None:
    """checkpoint_best.pt stays whole when the numbered file that it was made from is rotated away."""
    save_checkpoint(tmp_path / "checkpoint_step_1.pt", {"step": 1})
    copy_as_best(tmp_path / "checkpoint_step_1.pt", tmp_path)
    (tmp_path / "checkpoint_step_1.pt").unlink()
    assert read_checkpoint(tmp_path / "checkpoint_best.pt")["step"] == 1


def test_pickle_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    """A checkpoint that holds a pickle with code is refused by name, and the code does not run."""
    import pickle

    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    path = tmp_path / "checkpoint_best.pt"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(UserError, match="not a usable checkpoint"):
        read_checkpoint(path)
    torch.save({"format": 1, "bomb": Bomb()}, path)
    with pytest.raises(UserError, match="not a usable checkpoint"):
        read_checkpoint(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("given", "processes", "expected"),
    [
        ({}, 1, (32, 1)),
        ({}, 4, (8, 1)),
        ({"per_device_train_batch_size": 4}, 1, (4, 8)),
        ({"per_device_train_batch_size": 4}, 2, (4, 4)),
        ({"gradient_accumulation_steps": 4}, 2, (4, 4)),
        ({"per_device_train_batch_size": 4, "gradient_accumulation_steps": 8}, 1, (4, 8)),
        ({"global_batch_size": 6, "per_device_train_batch_size": 4}, 1, None),
        ({"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4}, 1, None),
        ({"global_batch_size": 2}, 4, None),
        ({"gradient_accumulation_steps": 0}, 1, None),
    ],
)
def test_global_batch_is_what_was_asked_for(
    given: dict[str, int], processes: int, expected: tuple[int, int] | None
) -> None:
    """Per-device size and accumulation follow from the global batch, and what does not divide is refused."""
    fresh: dict[str, Any] = {"per_device_train_batch_size": None, "gradient_accumulation_steps": None}
    fresh = {"global_batch_size": 32, **fresh, **given}
    if expected is None:
        with pytest.raises(ValueError, match=r"global_batch_size|gradient_accumulation_steps"):
            resolve_batch(**fresh, processes=processes)
    else:
        assert resolve_batch(**fresh, processes=processes) == expected


@pytest.mark.parametrize(
    ("given", "launcher", "expected"),
    [
        ({"precision": "fp32"}, "bf16", ("fp32", "no")),
        ({"precision": "auto"}, "bf16", ("bf16", "bf16")),
        ({"precision": "bf16"}, "no", ("bf16", "bf16")),
        ({"bf16": True}, "no", ("bf16", "bf16")),
    ],
)
def test_precision_is_resolved_and_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], launcher: str, expected: tuple[str, str]
) -> None:
    """The recipe's precision wins over the launcher's, `auto` follows the launcher, and the outcome is recorded."""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", launcher)
    arguments = HindiTrainingArguments(output_dir=str(tmp_path), use_cpu=True, **given)
    assert (arguments.precision, arguments.mixed_precision) == expected


def test_automatic_precision_asks_the_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a launcher's word, a CPU gets bf16 exactly when it multiplies it natively."""
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    for native, expected in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda native=native: native)
        assert HindiTrainingArguments(output_dir=str(tmp_path), use_cpu=True).precision == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"precision": "fp16"}, "fp16 needs a CUDA GPU"),
        ({"precision": "half"}, "precision must be one of"),
        ({"precision": "fp32", "bf16": True}, "precision fp32 contradicts bf16"),
    ],
)
def test_impossible_precision_is_refused(tmp_path: Path, given: dict[str, Any], message: str) -> None:
    """A precision that the machine lacks, that does not exist or that contradicts a flag is refused by name."""
    with pytest.raises(ValueError, match=message):
        HindiTrainingArguments(output_dir=str(tmp_path), use_cpu=True, **given)


def test_fp32_run_is_not_autocast(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """precision fp32 computes in fp32 even when the launcher's environment says bf16."""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    trainer = make()
    assert trainer.accelerator.mixed_precision == "no"


@pytest.mark.parametrize(("architecture", "matrices"), [("gpt2", 8), ("llama", 14), ("deberta-v2", 13)])
def test_muon_gets_the_hidden_matrices_and_adamw_the_rest(tmp_path: Path, architecture: str, matrices: int) -> None:
    """Every parameter is in exactly one group; Muon has the block matrices, no embedding and no vector.

    DeBERTa's thirteenth is the matrix before its output; its embedding of distances is none.
    """
    model = tiny_model(architecture)
    arguments = HindiTrainingArguments(output_dir=str(tmp_path), muon_learning_rate=0.01, precision="fp32")
    decayed = Trainer.get_decay_parameter_names(None, model)  # type: ignore[arg-type]
    optimizer = build_muon(model, args=arguments, decayed=decayed)
    names = {id(p): name for name, p in model.named_parameters()}
    groups = [[names[id(p)] for p in group["params"]] for group in optimizer.param_groups]
    assert sorted(name for group in groups for name in group) == sorted(names.values())
    assert all(p.ndim == 2 for p in optimizer.param_groups[2]["params"])
    assert len(groups[2]) == matrices
    assert not any("wte" in name or "wpe" in name or "embed" in name or "lm_head" in name for name in groups[2])
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.01, 0.0, 0.01]
    assert all("norm" in name.lower() or "ln_" in name or "bias" in name for name in groups[1])


@pytest.mark.parametrize(
    ("schedule", "settings"),
    [
        ("polynomial", {"lr_end": 1e-4}),
        ("cosine_with_min_lr", {"min_lr": 1e-3}),
        ("cosine_warmup_with_min_lr", {"min_lr": 1e-3}),
    ],
)
def test_schedules_with_a_floor_keep_the_proportion_of_muon(
    make: Make, schedule: str, settings: dict[str, Any]
) -> None:
    """A floor is one of AdamW's rate; Muon's ends in the proportion that the two have."""
    trainer = make(
        learning_rate=1e-2,
        muon_learning_rate=0.05,
        lr_scheduler_type=schedule,
        lr_scheduler_kwargs=settings,
        max_steps=6,
        eval_strategy="no",
        save_strategy="no",
    )
    trainer.train()
    assert trainer.lr_scheduler is not None
    *adamw, muon = trainer.lr_scheduler.get_last_lr()
    alone = torch.optim.SGD([torch.zeros(1)], lr=1e-2)
    scheduler: Any = get_scheduler(schedule, alone, 0, 6, scheduler_specific_kwargs=settings)
    for _ in range(6):
        alone.step()
        scheduler.step()
    (ends,) = scheduler.get_last_lr()
    assert ends < 2e-3
    assert adamw == pytest.approx([ends] * len(adamw))
    assert muon == pytest.approx(5 * ends)


def test_muon_with_adamw_equals_the_two_optimizers_apart(tmp_path: Path) -> None:
    """Three steps, a save and a load in the middle, give bit for bit what torch's two optimizers give by themselves."""
    arguments = HindiTrainingArguments(output_dir=str(tmp_path), muon_learning_rate=0.02, precision="fp32")
    rows = Rows([12] * 4)
    ours, theirs = tiny_model("llama"), tiny_model("llama")
    decayed = Trainer.get_decay_parameter_names(None, ours)  # type: ignore[arg-type]
    optimizer = build_muon(ours, args=arguments, decayed=decayed)
    hidden = [p for name, p in theirs.named_parameters() if p.ndim == 2 and "layers" in name]
    table = [p for name, p in theirs.named_parameters() if p.ndim == 2 and "layers" not in name]
    vectors = [p for p in theirs.parameters() if p.ndim == 1]
    muon = torch.optim.Muon(hidden, lr=0.02, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(
        [{"params": table, "weight_decay": 0.01}, {"params": vectors, "weight_decay": 0.0}], lr=3e-4, fused=True
    )
    for step in range(3):
        for model, optimizers in ((ours, [optimizer]), (theirs, [muon, adamw])):
            model.zero_grad()
            loss = model(rows.ids, labels=rows.labels).loss
            assert loss is not None
            loss.backward()
            for part in optimizers:
                part.step()
        if step == 1:
            torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
            optimizer = build_muon(ours, args=arguments, decayed=decayed)
            optimizer.load_state_dict(torch.load(tmp_path / "optimizer.pt", weights_only=True))
    for name, p in ours.named_parameters():
        assert torch.equal(p, dict(theirs.named_parameters())[name]), name


def test_muon_follows_the_schedule(make: Make) -> None:
    """The trainer builds the pair, and the schedule scales both rates alike."""
    trainer = make("llama", muon_learning_rate=0.02, lr_scheduler_type="linear")
    trainer.train()
    assert isinstance(trainer.optimizer.optimizer, MuonWithAdamW)  # type: ignore[union-attr]
    rates = [group["lr"] for group in trainer.optimizer.param_groups]  # type: ignore[union-attr]
    assert rates == pytest.approx([0.0, 0.0, 0.0])
    logged = [entry["learning_rate"] for entry in trainer.state.log_history if "loss" in entry]
    assert max(logged) == pytest.approx(1e-2)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        (
            "_maybe_log_save_evaluate",
            "self, tr_loss, grad_norm, model, trial, epoch, ignore_keys_for_eval, start_time, learning_rate",
        ),
        ("_determine_best_metric", "self, metrics, trial"),
        ("_prepare_for_training", "self, max_steps, train_dataloader, resume_from_checkpoint"),
        ("_save_checkpoint", "self, model, trial"),
        ("_load_best_model", "self"),
        ("_get_train_sampler", "self, train_dataset"),
    ],
)
def test_private_hooks_are_what_we_override(name: str, parameters: str) -> None:
    """The private hooks of the stock Trainer still have the signature that ours replace or call."""
    assert ", ".join(inspect.signature(getattr(Trainer, name)).parameters) == parameters
    assert inspect.signature(getattr(HindiLanguageModelTrainer, name)).parameters.keys() == (
        inspect.signature(getattr(Trainer, name)).parameters.keys()
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, (True, "loss", False)),
        ({"metric_for_best_model": "eval_perplexity"}, (True, "eval_perplexity", False)),
        ({"eval_strategy": "no"}, (False, "loss", False)),
        ({"eval_strategy": "no", "load_best_model_at_end": False}, (False, "loss", False)),
    ],
)
def test_best_model_is_the_lowest_where_the_run_evaluates(
    tmp_path: Path, given: dict[str, Any], expected: tuple[bool, str, bool]
) -> None:
    """Loss and perplexity are better when smaller, and a run without evaluations exports its last weights."""
    arguments = HindiTrainingArguments(output_dir=str(tmp_path), precision="fp32", **given)
    assert (
        arguments.load_best_model_at_end,
        arguments.metric_for_best_model,
        arguments.greater_is_better,
    ) == expected


@pytest.mark.parametrize(
    ("launched", "asked", "processes", "expected"),
    [(True, "1", "1", 6), (True, "1", "2", 3), (True, "3", "1", 5), (False, "1", "1", 5)],
)
def test_threads_of_accelerate_are_undone(
    monkeypatch: pytest.MonkeyPatch, launched: bool, asked: str, processes: str, expected: int
) -> None:
    """The single thread that accelerate launch gives by default becomes all cores; any other wish is left alone."""
    if launched:
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    else:
        monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)), raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    threads = [5]
    monkeypatch.setattr(torch, "set_num_threads", lambda number: threads.append(number))
    use_all_cores()
    assert threads[-1] == expected
