"""Advice: each symptom is told once, with its figure, and healthy runs are told nothing."""

import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hindi_babylm.run import main
from hindi_babylm.storage import UserError
from hindi_babylm.training import advice
from hindi_babylm.training.advice import Advice, batch_advice, learning_rate_advice, out_of_memory_told, speed_advice
from hindi_babylm.training.arguments import HindiTrainingArguments
from hindi_babylm.training.callbacks import MetricLists
from hindi_babylm.training.trainer import HindiLanguageModelTrainer
from tests.runs import back_to, results_of
from tests.test_training import Rows, tiny_model


class Clock:
    """A clock that goes on by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


def told(
    losses: Sequence[float],
    evaluations: Sequence[float] = (),
    *,
    parameters: int = 5_000_000,
    history: Sequence[dict[str, Any]] = (),
    seconds: Clock | None = None,
    **arguments: Any,
) -> Advice:
    """Play a log to the callback, with the evaluations at equal distances, and return the callback."""
    settings = {
        "muon_learning_rate": None,
        "optim": "adamw_torch_fused",
        "learning_rate": 3e-4,
        "global_batch_size": 32,
        "early_stopping_patience": None,
        "get_warmup_steps": lambda steps: steps // 10,
        "eval_strategy": "steps",
        **arguments,
    }
    args: Any = SimpleNamespace(**settings)
    state: Any = SimpleNamespace(
        max_steps=len(losses),
        global_step=len(history),
        log_history=[*history],
        is_world_process_zero=True,
    )
    model = SimpleNamespace(num_parameters=lambda: parameters)
    callbacks = [
        MetricLists({"train_loss": [], "val_loss": [], "perplexity": [], "learning_rate": []}),
        callback := Advice(block_size=512),
    ]
    for each in callbacks:
        each.on_train_begin(args, state, None, model=model)  # type: ignore[arg-type]
    between = len(losses) // len(evaluations) if evaluations else len(losses) + 1
    for index, loss in enumerate(losses[len(history) :], len(history) + 1):
        state.global_step = index
        events: list[dict[str, Any]] = [{"loss": loss, "learning_rate": 1e-3, "grad_norm": 1.0, "epoch": 0.5}]
        if index % between == 0:
            events.append({"eval_loss": evaluations[index // between - 1], "eval_perplexity": 1.0, "epoch": 0.5})
        for event in events:
            state.log_history.append({**event, "step": index})
            for each in callbacks:
                each.on_log(args, state, None, logs=event)  # type: ignore[arg-type]
            if "eval_loss" in event:
                callback.on_evaluate(args, state, None)
        if seconds is not None:
            seconds.now += 1
    return callback


def healthy(steps: int, *, start: float = 9.0, end: float = 4.0, noise: float = 0.15, seed: int = 0) -> list[float]:
    """Return losses that fall as a power of the step, with the noise of a small batch."""
    draw = random.Random(seed)
    return [end + (start - end) * (1 + step / 20) ** -0.7 + draw.gauss(0, noise) for step in range(steps)]


def spoken(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return each advice on stdout as one line, once no line of it has been found to pass 80 columns."""
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if len(line) > 80] == []
    return [line for line in "\n".join(lines).replace("\n  ", " ").splitlines() if line.startswith("Advice: ")]


@pytest.mark.parametrize("steps", [30, 380, 5000])
@pytest.mark.parametrize("seed", range(3))
def test_healthy_runs_are_told_nothing(capsys: pytest.CaptureFixture[str], steps: int, seed: int) -> None:
    """Falling losses with noise, and validation losses that fall and then waver, draw no advice."""
    losses = healthy(steps, seed=seed)
    validation = [5.0, 4.6, 4.4, 4.3, 4.25, 4.23, 4.22, 4.225, 4.23, 4.21]
    assert told(losses, validation).given == {}
    assert told(losses, parameters=110_000_000).given == {}
    assert spoken(capsys) == []


def test_harder_text_midway_is_no_divergence() -> None:
    """A loss that jumps by half a nat, as when a curriculum changes its stage, draws no advice."""
    assert told(healthy(400, end=3.5) + [loss + 0.5 for loss in healthy(400, start=3.6, end=3.4)]).given == {}


def test_rising_loss_is_divergence(capsys: pytest.CaptureFixture[str]) -> None:
    """A training loss a nat above its lowest mean is told once, with both figures."""
    losses = healthy(200, noise=0) + [7.5] * 100
    callback = told(losses)
    (line,) = spoken(capsys)
    lowest = min(sum(losses[i : i + 20]) / 20 for i in range(0, 200, 20))
    assert f"training loss rose from {lowest:.2f} to 7.50" in line
    assert "lower learning_rate" in line
    assert list(callback.given) == ["divergence"]
    assert line == f"Advice: {callback.given['divergence']['text']}"


def test_loss_that_does_not_fall(capsys: pytest.CaptureFixture[str]) -> None:
    """A loss that a hundred steps after the warmup is where it began is told once, with both figures."""
    losses = [9.0 - 0.0005 * step for step in range(300)]  # a warmup of 30 steps
    told(losses)
    (line,) = spoken(capsys)
    assert (
        f"training loss does not fall ({sum(losses[:20]) / 20:.2f} -> {sum(losses[140:160]) / 20:.2f} by step 160"
        in line
    )
    assert "learning_rate" in line
    assert told(losses[:120]).given == {}  # too early to say


def test_overfitting(capsys: pytest.CaptureFixture[str]) -> None:
    """Three rises of the validation loss while the training loss falls are told once, with all figures."""
    losses = [loss for epoch in range(8) for loss in [5.0 - 0.3 * epoch] * 10]
    validation = [4.5, 4.2, 3.91, 3.95, 4.05, 4.2, 4.4, 4.6]
    callback = told(losses, validation)
    (line,) = spoken(capsys)
    assert "validation loss rose for 3 evaluations (3.91 -> 4.20) while training loss fell (4.40 -> 3.50)" in line
    assert "set early_stopping_patience" in line
    assert list(callback.given) == ["overfitting"]
    assert (
        "early_stopping_patience"
        not in told(losses, validation, early_stopping_patience=5).given["overfitting"]["text"]
    )


@pytest.mark.parametrize(
    ("train", "validation"),
    [
        ([5.0, 4.7, 4.4, 4.1], [3.91, 4.0, 3.99, 4.2]),  # not in a row
        ([5.0, 4.7, 4.4, 4.1], [3.910, 3.912, 3.914, 3.916]),  # a plateau
        ([5.0, 5.2, 5.4, 5.6], [3.91, 4.0, 4.1, 4.2]),  # the training loss rises too
        ([5.0, 4.7, 4.4], [3.91, 4.0, 4.1]),  # two rises
    ],
)
def test_what_is_no_overfitting(train: list[float], validation: list[float]) -> None:
    """Rises that are not three in a row, too small to count, or of both losses, draw no advice."""
    assert told([loss for mean in train for loss in [mean] * 10], validation).given == {}


def test_learning_rate_by_size() -> None:
    """The peak rate is held against the specification's range for the size; between two classes both count."""
    inside = [(40e6, 1e-3), (40e6, 3e-3), (110e6, 1e-4), (110e6, 3e-4), (110e6, 1e-3), (222e6, 2e-4), (222e6, 1e-5)]
    outside = [(40e6, 3e-4), (40e6, 4e-3), (110e6, 9e-5), (110e6, 2e-3), (222e6, 2e-3), (400e6, 2e-4), (400e6, 9e-6)]
    for parameters, rate in [*inside, (400e6, 1e-4), (5e6, 0.008)]:
        assert learning_rate_advice(int(parameters), rate) is None, (parameters, rate)
    for parameters, rate in outside:
        assert learning_rate_advice(int(parameters), rate) is not None, (parameters, rate)
    text = learning_rate_advice(40_000_000, 3e-4)
    assert text is not None
    assert "learning_rate 0.0003 is outside of 0.001 to 0.003, the range recommended for 40M parameters" in text


def test_learning_rate_of_other_optimizers_is_left_alone() -> None:
    """The ranges are AdamW's: with Muon or another optimizer no rate is judged."""
    losses = healthy(30)
    assert list(told(losses, parameters=40_000_000).given) == ["learning rate"]
    assert told(losses, parameters=40_000_000, muon_learning_rate=0.01).given == {}
    assert told(losses, parameters=40_000_000, optim="adafactor").given == {}


def test_batch_size() -> None:
    """The global batch is held against the specification's table, 8 to 64 rows."""
    for batch in (8, 16, 32, 64):
        assert batch_advice(110_000_000, batch) is None
    assert "noisy" in str(batch_advice(110_000_000, 4))
    assert "few steps" in str(batch_advice(110_000_000, 128))
    assert batch_advice(5_000_000, 4) is None


def test_speed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A large model slower than the specification's table is told once, with its tokens a second."""
    clock = Clock()
    monkeypatch.setattr(advice, "time", clock)
    # 4 rows of 512 tokens a second.
    callback = told(healthy(200), parameters=110_000_000, seconds=clock, global_batch_size=8, muon_learning_rate=0.1)
    (line,) = spoken(capsys)
    assert "4,096 tokens a second are slow (a V100 trains 110M parameters at 5,000)" in line
    assert list(callback.given) == ["speed"]
    assert told(healthy(200), parameters=110_000_000, seconds=clock, global_batch_size=32).given == {}
    assert told(healthy(200), seconds=clock, global_batch_size=8).given == {}
    assert speed_advice(40_000_000, 7999) is not None
    assert speed_advice(40_000_000, 8000) is None
    assert speed_advice(220_000_000, 2499) is not None
    # An evaluation every 20 steps: its time must not count, and 20 seconds are too short to judge.
    assert told(healthy(200), [5.0] * 10, parameters=110_000_000, seconds=clock, global_batch_size=8).given == {}


def test_resumed_run_does_not_repeat_itself(capsys: pytest.CaptureFixture[str]) -> None:
    """What the log of the run's first part shows was said in it: it is kept, and not said again."""
    losses = healthy(200, noise=0) + [7.5] * 100
    history = [
        {"loss": loss, "learning_rate": 1e-3, "epoch": 0.5, "step": n + 1} for n, loss in enumerate(losses[:260])
    ]
    assert list(told(losses, history=history, parameters=40_000_000).given) == ["learning rate", "divergence"]
    assert spoken(capsys) == []


def test_advice_of_a_real_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Training at an absurd rate is told to be divergence by the callback of a real trainer."""
    arguments = HindiTrainingArguments(
        output_dir=str(tmp_path),
        precision="fp32",
        global_batch_size=4,
        num_train_epochs=20,
        learning_rate=3.0,
        eval_strategy="no",
        save_strategy="no",
    )
    callback = Advice(block_size=12)
    HindiLanguageModelTrainer(tiny_model("gpt2"), arguments, Rows([12] * 20), Rows([12]), callbacks=[callback]).train()
    assert "divergence" in callback.given
    assert any("divergence" in line for line in spoken(capsys))


def test_advice_is_a_result_that_a_resume_neither_loses_nor_doubles(
    write_recipe: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """results.json lists each advice with its step and symptom, also those that only the first part of a run saw."""
    calls = iter(range(1000))
    monkeypatch.setattr(advice, "SMALLEST", 0)
    monkeypatch.setattr(advice, "SPEED_SECONDS", 0.0)
    monkeypatch.setattr(advice, "speed_advice", lambda *figures: f"slow, measured {next(calls)} times before")
    every: dict[str, Any] = {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2}
    recipe = write_recipe(learning_rate=0.5, global_batch_size=6, logging_steps=1, save_total_limit=50, **every)
    main([str(recipe)])
    whole, killed = recipe.parent / "run", recipe.parent / "killed"
    given = results_of(whole)["advice"]
    assert [(entry["symptom"], entry["step"]) for entry in given] == [("learning rate", 0), ("batch", 0), ("speed", 2)]
    out = capsys.readouterr().out.replace("\n  ", " ")
    assert [f"Advice: {entry['text']}" in out for entry in given] == [True] * 3
    assert out.count("Advice: ") == 3
    last = results_of(whole)["training"]["steps"]
    for step in (4, last - last % 2, last):
        back_to(whole, killed, step)
        main([str(killed / "recipe.json")])
        assert "Advice: " not in capsys.readouterr().out
        assert results_of(killed)["advice"] == given
        shutil.rmtree(killed)


def arguments_for(tmp_path: Path, **settings: Any) -> HindiTrainingArguments:
    """Return training arguments in fp32."""
    return HindiTrainingArguments(output_dir=str(tmp_path), precision="fp32", **settings)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: 5 bytes"),
    ],
)
def test_out_of_memory_is_one_line(tmp_path: Path, error: RuntimeError) -> None:
    """An exhausted memory becomes one line with the sizes and the keys that mend it."""
    with pytest.raises(UserError) as caught, out_of_memory_told(arguments_for(tmp_path), block_size=512):
        raise error
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith("out of memory with per_device_train_batch_size 32 and block_size 512: ")
    for way in ("per_device_train_batch_size 16", "gradient_checkpointing true", "precision bf16", "block_size"):
        assert way in line
    with (
        pytest.raises(UserError) as caught,
        out_of_memory_told(
            arguments_for(tmp_path, per_device_train_batch_size=1, gradient_checkpointing=True), block_size=512
        ),
    ):
        raise error
    assert "per_device_train_batch_size 0" not in str(caught.value)
    assert "gradient_checkpointing" not in str(caught.value)


def test_other_errors_pass(tmp_path: Path) -> None:
    """An error that is not about memory stays what it is."""
    with pytest.raises(RuntimeError, match="shape"), out_of_memory_told(arguments_for(tmp_path), block_size=512):
        raise RuntimeError("shape mismatch")


def test_run_out_of_memory_ends_with_code_2(
    write_recipe: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command says what to change and exits with code 2."""

    def training_step(*args: Any, **kwargs: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(HindiLanguageModelTrainer, "training_step", training_step)
    with pytest.raises(SystemExit) as ended:
        main([str(write_recipe())])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("error: out of memory with per_device_train_batch_size 8")


def test_bundled_recipes_draw_no_advice_on_settings() -> None:
    """The rates and batches of the bundled recipes are inside of the ranges for their sizes."""
    sizes = {"quickstart": 5_300_000, "small": 40_200_000, "base": 110_000_000, "large": 222_000_000}
    for name, parameters in sizes.items():
        path = Path(__file__).parent.parent / "recipes" / f"{name}.json"
        training = json.loads(path.read_text(encoding="utf-8"))["training"]
        assert learning_rate_advice(parameters, training["learning_rate"]) is None, name
        assert batch_advice(parameters, training["global_batch_size"]) is None, name
