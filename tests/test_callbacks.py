"""What the callbacks of a trainer tell when it is used more than once."""

from pathlib import Path

import pytest

from hindi_babylm.training.arguments import HindiTrainingArguments
from hindi_babylm.training.trainer import HindiLanguageModelTrainer
from tests.test_training import Rows, tiny_model


def told(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return what was printed of losses since the last call, without the figures."""
    out = capsys.readouterr().out
    return [line.split(":")[0] for line in out.splitlines() if line.startswith(("Train Loss:", "Val Loss:"))]


def test_each_training_of_a_trainer_tells_its_losses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A second `train` tells the training loss of every epoch as the first did; an evaluation after it tells none."""
    arguments = HindiTrainingArguments(
        output_dir=str(tmp_path), precision="fp32", global_batch_size=4, num_train_epochs=2
    )
    trainer = HindiLanguageModelTrainer(tiny_model("gpt2"), arguments, Rows([12] * 8), Rows([12]))
    for _ in range(2):
        trainer.train()
        # SIGTERM to the tests themselves, as of a time limit, ends the training and not the process.
        assert not trainer.interruption.asked, "a signal from outside ended the training"
        assert told(capsys) == ["Train Loss", "Val Loss"] * 2
        trainer.evaluate()
        assert told(capsys) == ["Val Loss"]
    trainer.train(tmp_path / "checkpoints" / "checkpoint_epoch_1.pt")
    assert told(capsys) == ["Train Loss", "Val Loss"]
    # An ended training: its losses were told when it was trained.
    other = HindiLanguageModelTrainer(tiny_model("gpt2"), arguments, Rows([12] * 8), Rows([12]))
    other.train(tmp_path / "checkpoints" / "checkpoint_epoch_2.pt")
    assert len(other.metrics["train_loss"]) == 2
    other.evaluate()
    assert told(capsys) == ["Val Loss"]
