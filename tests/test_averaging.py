import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForCausalLM, TrainerCallback

from hindi_babylm.run import main
from hindi_babylm.training.averaging import WeightAverage, warmed_decay
from hindi_babylm.training.checkpoint import load_checkpoint, read_checkpoint
from hindi_babylm.training.trainer import HindiLanguageModelTrainer
from tests.runs import EVERY_OTHER_STEP, EVERY_STEP, assert_equal_runs, back_to, events_of, results_of

pytestmark = pytest.mark.usefixtures("unreported")

WriteRecipe = Callable[..., Path]
Weights = dict[str, torch.Tensor]


class History(TrainerCallback):
    """Keep the weights before the first step and after every step, in float64."""

    def __init__(self) -> None:
        self.weights: list[Weights] = []

    def _keep(self, model: nn.Module) -> None:
        self.weights.append({name: own.detach().double().clone() for name, own in model.named_parameters()})

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._keep(kwargs["model"])

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._keep(kwargs["model"])


@pytest.fixture
def history(monkeypatch: pytest.MonkeyPatch) -> History:
    """Return the weights of every step of the runs of a test."""
    kept = History()
    original = HindiLanguageModelTrainer.__init__

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self.add_callback(kept)

    monkeypatch.setattr(HindiLanguageModelTrainer, "__init__", init)
    return kept


def average(history: list[Weights], decay: float) -> Weights:
    """Return the average of all weights by a plain sum: each step's share is 1 - d, times the d of the later ones."""
    decays = [min(decay, (1 + step) / (10 + step)) for step in range(len(history) - 1)]
    shares = [math.prod(decays)]
    shares += [(1 - decays[step]) * math.prod(decays[step + 1 :]) for step in range(len(decays))]
    assert sum(shares) == pytest.approx(1)
    return {
        name: torch.stack([share * weights[name] for share, weights in zip(shares, history, strict=True)]).sum(dim=0)
        for name in history[0]
    }


def assert_close(found: Weights, expected: Weights) -> None:
    """Assert that weights are those expected but for the rounding of fp32."""
    for name, value in expected.items():
        assert torch.allclose(found[name].double(), value, rtol=1e-5, atol=1e-6), name


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
@pytest.mark.parametrize(
    "settings", [{}, {"gradient_accumulation_steps": 4, "precision": "bf16", "muon_learning_rate": 0.01}]
)
def test_average_is_that_of_the_weights_of_every_step(
    write_recipe: WriteRecipe, history: History, architecture: str, settings: dict[str, Any]
) -> None:
    """Each checkpoint holds the average of the weights of all steps up to it, and the weights of its step beside it."""
    recipe = write_recipe(architecture=architecture, ema_decay=0.8, save_total_limit=50, **EVERY_STEP, **settings)
    main([str(recipe)])
    folder = recipe.parent / "run"
    steps = results_of(folder)["training"]["steps"]
    assert steps == len(history.weights) - 1 >= 6
    for step in range(1, steps + 1):
        checkpoint = read_checkpoint(folder / "checkpoints" / f"checkpoint_step_{step}.pt")
        expected = average(history.weights[: step + 1], 0.8)
        averages = checkpoint["ema_state_dict"]
        assert_close(averages, expected)
        assert all(value.dtype == torch.float32 for value in averages.values())
        assert all(torch.equal(checkpoint["model_state_dict"][n].double(), w) for n, w in history.weights[step].items())
        assert not any(torch.equal(averages[name], checkpoint["model_state_dict"][name]) for name in expected)


@pytest.mark.parametrize("best", [True, False])
def test_averages_are_evaluated_and_exported(write_recipe: WriteRecipe, best: bool) -> None:
    """The validation loss is that of the averages, and final_model and load_checkpoint have those of the same step."""
    recipe = write_recipe(
        ema_decay=0.9, num_train_epochs=2, learning_rate=0.1, load_best_model_at_end=best, save_total_limit=50,
        **EVERY_OTHER_STEP,
    )  # fmt: skip
    main([str(recipe)])
    folder = recipe.parent / "run"
    results = results_of(folder)
    assert results["model"]["weights"] == "ema"
    name = "checkpoint_best.pt" if best else f"checkpoint_step_{results['training']['steps']}.pt"
    checkpoint = read_checkpoint(folder / "checkpoints" / name)
    assert checkpoint["step"] == results["model"]["step"]
    exported = load_file(folder / "final_model" / "model.safetensors")
    assert exported
    assert all(torch.equal(value, checkpoint["ema_state_dict"][name]) for name, value in exported.items())
    model, tokenizer = load_checkpoint(folder / "checkpoints" / name)
    ids = tokenizer("राम घर जाता है ।", return_tensors="pt")["input_ids"]
    stranger = AutoModelForCausalLM.from_pretrained(folder / "final_model")
    assert torch.equal(model(ids).logits, stranger(ids).logits)

    from hindi_babylm.packing import TokenStore, pack

    blocks = pack(TokenStore(folder / "tokens" / "validation"), block_size=32)
    nll = count = 0.0
    for index in range(len(blocks)):
        row = blocks[index]
        targets = row["labels"][1:]
        with torch.no_grad():
            logs = torch.log_softmax(stranger(row["input_ids"][None]).logits[0, :-1].double(), dim=-1)
        nll -= sum(logs[place, token].item() for place, token in enumerate(targets.tolist()) if token != -100)
        count += int(targets.ne(-100).sum())
    (event,) = [
        event for event in events_of(folder) if "eval_loss" in event and event["step"] == results["model"]["step"]
    ]
    assert event["eval_loss"] == pytest.approx(nll / count, abs=1e-6)


def test_averaging_leaves_the_training_alone(write_recipe: WriteRecipe) -> None:
    """The losses of the steps and the trained weights are bit for bit those of a run without averages."""
    settings = {"dropout": 0.2, "num_train_epochs": 2, "save_total_limit": 50, **EVERY_OTHER_STEP}
    runs = []
    for name, decay in (("plain", None), ("averaged", 0.9)):
        output = Path(write_recipe().parent / name)
        main([str(write_recipe(name, ema_decay=decay, output_dir=str(output), **settings))])
        weights = [read_checkpoint(output / "checkpoints" / f"checkpoint_step_{step}.pt") for step in (2, 8)]
        runs.append(([event["loss"] for event in events_of(output) if "loss" in event], weights))
    assert runs[0][0] == runs[1][0]
    for plain, averaged in zip(runs[0][1], runs[1][1], strict=True):
        assert "ema_state_dict" not in plain
        for name, value in plain["model_state_dict"].items():
            assert torch.equal(value, averaged["model_state_dict"][name])


def test_resumed_averages_equal_uninterrupted_ones(write_recipe: WriteRecipe) -> None:
    """From the middle of an epoch a run goes on to the same trained weights and the same averages, bit for bit."""
    recipe = write_recipe(
        ema_decay=0.95, dropout=0.2, gradient_accumulation_steps=2, num_train_epochs=2, save_total_limit=50,
        load_best_model_at_end=False, **EVERY_OTHER_STEP,
    )  # fmt: skip
    main([str(recipe)])
    whole, again = recipe.parent / "run", recipe.parent / "again"
    back_to(whole, again, 4)
    main([str(again / "recipe.json")])
    assert_equal_runs(whole, again)
    for path in sorted((whole / "checkpoints").glob("checkpoint_step_*.pt")):
        one, other = read_checkpoint(path), read_checkpoint(again / "checkpoints" / path.name)
        for key in ("model_state_dict", "ema_state_dict"):
            assert all(torch.equal(value, other[key][name]) for name, value in one[key].items()), (path.name, key)


def test_a_finished_training_exports_its_averages_again(write_recipe: WriteRecipe) -> None:
    """A run that was killed between its last step and its export exports the averages when it is continued."""
    recipe = write_recipe(ema_decay=0.9, load_best_model_at_end=False)
    main([str(recipe)])
    folder = recipe.parent / "run"
    before = load_file(folder / "final_model" / "model.safetensors")
    for name in ("results.json", "training.json"):
        (folder / name).unlink()
    main([str(recipe)])
    after = load_file(folder / "final_model" / "model.safetensors")
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_own_weights_come_back_after_an_error() -> None:
    """Within the block the model has the averages, tied weights in both places; after it its own, bit for bit."""
    embedding, output = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
    output.weight = embedding.weight
    model = nn.Sequential(embedding, output)
    own = embedding.weight.detach().clone()
    kept = WeightAverage(0.999)
    state: Any = SimpleNamespace(global_step=0)
    kept.on_train_begin(None, state, None, model=model)
    with torch.no_grad():
        embedding.weight.add_(1.0)
    kept.on_optimizer_step(None, state, None, model=model)
    averaged = kept.state_dict(model)
    assert torch.allclose(averaged["0.weight"], own + 0.9)  # the first step's decay is 0.1
    assert averaged["0.weight"] is averaged["1.weight"]

    def evaluation_that_fails() -> None:
        with kept.applied(model):
            assert torch.equal(output.weight, averaged["0.weight"])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        evaluation_that_fails()
    assert torch.equal(embedding.weight, own + 1.0)


def test_the_first_weights_are_soon_forgotten() -> None:
    """The share of the first weights after n steps is n! 9! / (n + 9)!, whatever the decay."""
    for steps in (1, 5, 20):
        share = math.prod(warmed_decay(0.9999, step) for step in range(steps))
        assert share == pytest.approx(1 / math.comb(steps + 9, 9))
