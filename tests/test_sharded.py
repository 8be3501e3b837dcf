"""Sharded checkpoints: which is whole, what it must have been written by, and the end of a run that it keeps."""

import json
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from transformers import Trainer
from transformers.trainer_utils import TrainOutput

from hindi_babylm.storage import UserError, write_json
from hindi_babylm.training.arguments import HindiTrainingArguments
from hindi_babylm.training.sharded import newest_sharded_checkpoint
from hindi_babylm.training.trainer import HindiLanguageModelTrainer
from tests.runs import assert_equal_runs, events_of, finish, moved, results_of
from tests.test_training import Rows, tiny_model

WriteRecipe = Callable[..., Path]
FACTS: dict[str, Any] = {
    "config": {"training": {"learning_rate": 0.1}},
    "processes": 1,
    "precision": "fp32",
    "seconds": 4.5,
    "finished": False,
    "run_ids": {"wandb": "abc"},
}


@pytest.fixture
def trainer(tmp_path: Path) -> HindiLanguageModelTrainer:
    """Return a trainer on one process, in fp32, with a learning rate of 0.1 in its recipe."""
    arguments = HindiTrainingArguments(output_dir=str(tmp_path / "run"), precision="fp32", global_batch_size=4)
    return HindiLanguageModelTrainer(tiny_model("gpt2"), arguments, Rows([12] * 8), Rows([12]), config=FACTS["config"])


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return a list of what the stock `train` is called with in place of training."""
    calls: list[Any] = []

    def train(self: Any, resume_from_checkpoint: Any = None) -> TrainOutput:
        calls.append(resume_from_checkpoint)
        return TrainOutput(0, 0.0, {})

    monkeypatch.setattr(Trainer, "train", train)
    return calls


@pytest.mark.parametrize("value", [None, True, False])
def test_a_word_that_names_no_checkpoint_is_left_to_the_stock_trainer(
    trainer: HindiLanguageModelTrainer, given: list[Any], value: bool | None
) -> None:
    """`train(resume_from_checkpoint=True)`, False and None mean what they mean to the stock Trainer."""
    trainer.train(resume_from_checkpoint=value)
    assert given == [value]


def test_a_sharded_checkpoint_of_the_same_conditions_is_continued(
    trainer: HindiLanguageModelTrainer, given: list[Any], tmp_path: Path
) -> None:
    """A folder that this recipe, precision and number of processes wrote goes to the stock Trainer, its facts to us."""
    write_json(tmp_path / "checkpoint-2" / "hindi_babylm.json", FACTS)
    trainer.train(str(tmp_path / "checkpoint-2"))
    assert given == [str(tmp_path / "checkpoint-2")]
    assert trainer.seconds > 4.5
    assert trainer.trackers.run_ids == {"wandb": "abc"}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"processes": 2}, "processes 2, now 1"),
        ({"precision": "bf16"}, "precision bf16, now fp32"),
        ({"config": {"training": {"learning_rate": 0.2}}}, "training.learning_rate"),
        ({"processes": 4, "precision": "fp16"}, "processes 4, now 1, precision fp16, now fp32"),
    ],
    ids=str,
)
def test_a_sharded_checkpoint_of_other_conditions_is_refused(
    trainer: HindiLanguageModelTrainer, given: list[Any], tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    """Another number of processes, precision or recipe is refused in one line that names both and the way out."""
    folder = tmp_path / "checkpoint-2"
    write_json(folder / "hindi_babylm.json", FACTS | change)
    with pytest.raises(UserError) as refused:
        trainer.train(folder)
    assert str(refused.value) == (
        f"{folder}: the checkpoint was written under other conditions ({told}): start the run as it was, or begin "
        "again with --overwrite"
    )
    assert given == []
    assert trainer.trackers.run_ids == {}


def test_a_folder_of_another_program_is_refused(
    trainer: HindiLanguageModelTrainer, given: list[Any], tmp_path: Path
) -> None:
    """A folder without our facts is refused in one line that says what was expected."""
    (tmp_path / "checkpoint-2").mkdir()
    with pytest.raises(UserError) as refused:
        trainer.train(str(tmp_path / "checkpoint-2"))
    assert str(refused.value) == (
        f"{tmp_path / 'checkpoint-2'}: neither a .pt file nor a sharded checkpoint of hindi_babylm: it has no "
        "hindi_babylm.json"
    )
    assert given == []


def test_the_newest_sharded_checkpoint_is_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the folders, the one of the highest step that every process finished is taken; the others are named."""
    for step in (2, 10, 9):
        folder = tmp_path / f"checkpoint-{step}"
        write_json(folder / "hindi_babylm.json", FACTS | {"processes": 2})
        write_json(folder / "trainer_state.json", {})
        for rank in range(1 if step == 10 else 2):
            (folder / f"rng_state_{rank}.pth").touch()
    assert newest_sharded_checkpoint(tmp_path) == str(tmp_path / "checkpoint-9")
    warning = f"Warning: passed over {tmp_path / 'checkpoint-10'}: not written to its end\n"
    assert capsys.readouterr().err == warning
    shutil.rmtree(tmp_path / "checkpoint-2")
    (tmp_path / "checkpoint-9" / "hindi_babylm.json").unlink()
    assert newest_sharded_checkpoint(tmp_path) is None


@pytest.mark.slow
@pytest.mark.xdist_group("torchrun")  # one launcher at a time: they look for free ports
@pytest.mark.parametrize(
    "settings",
    [
        {"num_train_epochs": 9, "learning_rate": 1e-30, "weight_decay": 0.0, "early_stopping_patience": 1},
        {"max_steps": 13},
    ],
    ids=str,
)
def test_a_sharded_run_that_had_ended_does_not_train_on(write_recipe: WriteRecipe, settings: dict[str, Any]) -> None:
    """Under FSDP, a run that had ended and was killed before its export is exported, and not trained, by the next."""
    recipe = write_recipe(fsdp=True, **settings)
    finish(recipe, processes=2, module="tests.fsdp_run")
    folder = recipe.parent / "run"
    shutil.copytree(folder, recipe.parent / "whole")
    shutil.rmtree(folder / "final_model")
    for name in ("results.json", "training.json"):
        (folder / name).unlink()
    written = sorted(folder.glob("checkpoint-*"))
    finish(recipe, processes=2, module="tests.fsdp_run")
    assert sorted(folder.glob("checkpoint-*")) == written
    last = settings.get("max_steps", 18)
    assert results_of(folder)["training"]["steps"] == last
    assert_equal_runs(recipe.parent / "whole", folder)
    before = json.loads((folder / f"checkpoint-{last}" / "hindi_babylm.json").read_text(encoding="utf-8"))["seconds"]
    assert json.loads((folder / "results.json").read_text(encoding="utf-8"))["training"]["seconds"] >= before > 0


@pytest.mark.slow
@pytest.mark.xdist_group("torchrun")  # one launcher at a time: they look for free ports
@pytest.mark.skipif(find_spec("deepspeed") is None, reason="the package deepspeed is not among the requirements")
def test_deepspeed_trains_as_plain_processes_do(write_recipe: WriteRecipe, tmp_path: Path) -> None:
    """ZeRO-2 gives the losses of two plain processes, goes on to the same bits, and keeps the end of a run."""
    settings: dict[str, Any] = {
        "num_train_epochs": 2,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "save_strategy": "steps",
        "save_steps": 2,
        "save_total_limit": 50,
    }
    finish(write_recipe("plain", output_dir=str(tmp_path / "plain"), **settings), processes=2)
    automatic = ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping")
    zero: dict[str, Any] = {"zero_optimization": {"stage": 2}, "zero_allow_untested_optimizer": True}
    recipe = write_recipe(**settings, deepspeed={**zero, **dict.fromkeys(automatic, "auto")})
    finish(recipe, processes=2, module="tests.deepspeed_run")
    whole, again = tmp_path / "run", tmp_path / "again"
    for plain, sharded in zip(events_of(tmp_path / "plain"), events_of(whole), strict=True):
        assert sharded == pytest.approx(plain, abs=1e-4), plain["step"]

    copy = moved(recipe, "again")
    for start in (6, 18):
        shutil.copytree(whole, again)
        shutil.rmtree(again / "final_model")
        for name in ("results.json", "training.json"):
            (again / name).unlink()
        for step in range(start + 2, 20, 2):
            shutil.rmtree(again / f"checkpoint-{step}")
        done = finish(copy, processes=2, module="tests.deepspeed_run")
        assert f"Resuming from {again / f'checkpoint-{start}'}" in done.stdout
        assert_equal_runs(whole, again)
        shutil.rmtree(again)
