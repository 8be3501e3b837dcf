import inspect
from typing import Any

import pytest
import torch
from transformers import optimization
from transformers.trainer_utils import SchedulerType

from hindi_babylm.recipe.schedules import NEEDED, SCHEDULES, check_schedule
from hindi_babylm.storage import UserError
from hindi_babylm.training.specification import schedule_arguments

# What the trainer gives to a schedule, and what only a resumed run may set.
NOT_SETTINGS = {"optimizer", "num_warmup_steps", "num_training_steps", "last_epoch"}
INSTALLED = [name for name in SCHEDULES if name in {entry.value for entry in SchedulerType}]


def parameters(name: str) -> set[str]:
    """Return the names that the library's own schedule takes."""
    function: Any = optimization.TYPE_TO_SCHEDULER_FUNCTION[SchedulerType(name)]
    by_loss = {"reduce_lr_on_plateau": torch.optim.lr_scheduler.ReduceLROnPlateau}
    if name == "greedy":
        by_loss["greedy"] = vars(optimization)["GreedyLR"]
    return set(inspect.signature(by_loss.get(name, function)).parameters) - NOT_SETTINGS


@pytest.mark.parametrize("name", INSTALLED)
def test_the_table_lists_what_the_library_takes(name: str) -> None:
    """A setting that transformers adds, renames or drops is noticed."""
    assert set(SCHEDULES[name]) == parameters(name)


def test_every_schedule_of_the_library_has_a_line() -> None:
    """No schedule needs the slow way of asking the library."""
    assert {entry.value for entry in SchedulerType} <= set(SCHEDULES)


@pytest.mark.parametrize("name", INSTALLED)
def test_what_the_table_lets_pass_the_library_takes(name: str) -> None:
    """A schedule with its needed settings, and with each other setting beside them, can be made."""
    values: dict[Any, Any] = {float: 0.5, int: 2, bool: False, float | None: 0.5, int | None: 2}
    needed = {group[0]: values[SCHEDULES[name][group[0]][0]] for group in NEEDED.get(name, ())}
    alternatives = {other for group in NEEDED.get(name, ()) for other in group[1:]}
    for key, (hint, checks) in [("", (None, {})), *SCHEDULES[name].items()]:
        if key in alternatives:
            continue
        value = checks["choices"][0] if "choices" in checks else values.get(hint)
        settings = {**needed, **({key: value} if key else {})}
        check_schedule("here", name, settings, learning_rate=1.0)
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        complete = schedule_arguments(name, settings, steps=10, warmup=2)
        optimization.get_scheduler(name, optimizer, 2, 10, scheduler_specific_kwargs=complete)


@pytest.mark.parametrize(
    ("name", "settings", "told"),
    [
        ("linear", {"num_cycles": 1.0}, "linear reads no 'num_cycles'; it reads none: leave lr_scheduler_kwargs out"),
        ("cosine", {"num_cycle": 1.0}, "cosine reads no 'num_cycle'; did you mean 'num_cycles'?"),
        ("cosine", {"last_epoch": 3}, "cosine reads no 'last_epoch'; there are num_cycles"),
        ("polynomial", {"lr_end": 1.0}, ".lr_end = 1.0: expected less than learning_rate 0.5"),
        ("cosine_with_min_lr", {"min_lr": 0.1, "min_lr_rate": 0.1}, "needs one of min_lr and min_lr_rate"),
        (
            "warmup_stable_decay",
            {"num_decay_steps": 5, "decay_type": "cubic"},
            '.decay_type = "cubic": expected one of',
        ),
        ("reduce_lr_on_plateau", {"factor": 1.5}, ".factor = 1.5: expected more than 0 and less than 1"),
    ],
)
def test_a_wrong_setting_is_told(name: str, settings: dict[str, Any], told: str) -> None:
    """What the library would refuse later, or not read at all, is refused with the way out."""
    with pytest.raises(UserError) as refused:
        check_schedule("here", name, settings, learning_rate=0.5)
    assert str(refused.value).startswith("here")
    assert told in str(refused.value)


def test_a_schedule_that_is_not_listed_is_asked_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """A schedule of a newer release is judged by the library."""
    monkeypatch.delitem(SCHEDULES, "cosine")
    check_schedule("here", "cosine", {"num_cycles": 0.5}, learning_rate=1.0)
    with pytest.raises(UserError, match=r"here = .*cosine does not take it: .*num_cycle"):
        check_schedule("here", "cosine", {"num_cycle": 0.5}, learning_rate=1.0)
