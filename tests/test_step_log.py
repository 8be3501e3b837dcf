"""The log of every step: what `tokens_per_second` counts, and what it leaves out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hindi_babylm.run import main
from hindi_babylm.training import step_log
from hindi_babylm.training.interruption import Interruption
from hindi_babylm.training.milestones import Milestones
from hindi_babylm.training.step_log import StepLog
from hindi_babylm.training.trainer import HindiLanguageModelTrainer
from tests.runs import all_events_of
from tests.test_interruption import signalling_at

WriteRecipe = Callable[..., Path]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[int, tuple[int, float]]:
    """Return the predicted tokens and seconds of each step, by a clock that only the test moves.

    A batch takes more seconds in each step; an evaluation, a checkpoint and a milestone take far longer.
    """
    now = 0.0
    monkeypatch.setattr(step_log, "perf_counter", lambda: now)
    found: dict[int, tuple[int, float]] = {}

    def taking(seconds: float, of: type, name: str) -> None:
        original = getattr(of, name)

        def slow(*args: Any, **kwargs: Any) -> Any:
            nonlocal now
            now += seconds
            return original(*args, **kwargs)

        monkeypatch.setattr(of, name, slow)

    for name in ("prediction_step", "_save_checkpoint"):
        taking(1000.0, HindiLanguageModelTrainer, name)
    taking(1000.0, Milestones, "_write")
    original = HindiLanguageModelTrainer.training_step

    def counting(self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal now
        step = self.state.global_step + 1
        # A batch's own first label is never predicted.
        predicted = int((inputs["labels"][:, 1:] != -100).sum())
        tokens, seconds = found.get(step, (0, 0.0))
        took = 3.0 + step
        found[step] = tokens + predicted, seconds + took
        now += took
        return original(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(HindiLanguageModelTrainer, "training_step", counting)
    return found


@pytest.mark.parametrize("logging_steps", [1, 3])
def test_throughput_is_that_of_the_steps_alone(
    write_recipe: WriteRecipe, seen: dict[int, tuple[int, float]], logging_steps: int
) -> None:
    """Each event has its step's predicted tokens over its own seconds, without what was evaluated and written."""
    recipe = write_recipe(
        num_train_epochs=2,
        per_device_train_batch_size=4,
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="steps",
        save_steps=4,  # so that an evaluation stands alone, too
        load_best_model_at_end=False,
        milestones=[200, 500, 1000],
        logging_steps=logging_steps,
    )
    main([str(recipe)])
    events = [event for event in all_events_of(recipe.parent / "run") if "loss" in event]
    assert len(events) == len(seen) > 8
    assert (
        len({tokens for tokens, _ in seen.values()}) > 1
    )  # an epoch's last batch and the store's last block are short
    for event in events:
        tokens, seconds = seen[event["step"]]
        assert event["tokens_per_second"] == round(tokens / seconds, 1)


def test_an_interrupted_run_has_each_throughput_once(
    write_recipe: WriteRecipe, seen: dict[int, tuple[int, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time between the two parts of a run is in no event, and no step has two."""
    recipe = write_recipe(num_train_epochs=2)
    with monkeypatch.context() as patch:
        patch.setattr(Interruption, "on_step_end", signalling_at(4))
        with pytest.raises(SystemExit):
            main([str(recipe)])
    main([str(recipe)])
    events = [event for event in all_events_of(recipe.parent / "run") if "loss" in event]
    assert [event["step"] for event in events] == sorted(seen)
    for event in events:
        tokens, seconds = seen[event["step"]]
        assert event["tokens_per_second"] == round(tokens / seconds, 1)


def test_a_pause_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done in `paused` counts to no step."""
    times = iter([0.0, 10.0, 50.0, 52.0])
    monkeypatch.setattr(step_log, "perf_counter", lambda: next(times))
    log = StepLog()
    with log.paused():
        pass
    assert log._lap() == 12.0
