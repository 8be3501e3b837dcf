"""The stock Trainer's sharded checkpoints `checkpoint-{step}` of FSDP and DeepSpeed: which is whole, and its facts."""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerState

from hindi_babylm.console import warn
from hindi_babylm.storage import UserError, differing_keys, read_json, write_json

if TYPE_CHECKING:
    from hindi_babylm.training.trainer import HindiLanguageModelTrainer

FACTS = "hindi_babylm.json"


def newest_sharded_checkpoint(folder: Path, *, until: float = math.inf) -> str | None:
    """Return the newest folder `checkpoint-{step}`, of a step up to `until`, that all processes finished writing."""
    # The stock search takes the highest number, which a kill may have left half written.
    steps = {int(path.name.rsplit("-", 1)[1]): path for path in folder.glob("checkpoint-*")}
    for path in [steps[step] for step in sorted(steps, reverse=True) if step <= until]:
        try:
            read_json(path / "trainer_state.json")
            processes = read_json(path / FACTS)["processes"]
            whole = len(list(path.glob("rng_state*.pth"))) == processes
        except (OSError, json.JSONDecodeError):
            whole = False
        if whole:
            return str(path)
        warn(f"passed over {path}: not written to its end")
    return None


def write_facts(trainer: "HindiLanguageModelTrainer") -> None:
    """Make the folder of the checkpoint to come and put into it what the stock Trainer does not write."""
    # It also looks for the folder of the best step before its sharded writers make it.
    path = Path(str(trainer.args.output_dir)) / f"checkpoint-{trainer.state.global_step}"
    path.mkdir(parents=True, exist_ok=True)
    if trainer.is_world_process_zero():
        facts = {
            "seconds": trainer.seconds,
            "finished": trainer.control.should_training_stop,
            "run_ids": trainer.trackers.run_ids,
        }
        write_json(path / FACTS, {**_conditions(trainer), **facts})


def read_facts(trainer: "HindiLanguageModelTrainer", path: Path) -> dict[str, Any]:
    """Take up the tracker runs of a sharded checkpoint and return its `seconds` of training and if it had `finished`.

    Raises UserError when it was written by another recipe, precision or number of processes, or by another program.
    """
    if not (path / FACTS).is_file():
        raise UserError(f"{path}: neither a .pt file nor a sharded checkpoint of hindi_babylm: it has no {FACTS}")
    facts: dict[str, Any] = read_json(path / FACTS)
    now = _conditions(trainer)
    different = differing_keys(facts["config"], now["config"])
    different += [
        f"{name} {facts[name]}, now {now[name]}" for name in ("processes", "precision") if facts[name] != now[name]
    ]
    if different:
        raise UserError(
            f"{path}: the checkpoint was written under other conditions ({', '.join(different)}): start the run as it "
            "was, or begin again with --overwrite"
        )
    trainer.trackers.run_ids |= facts["run_ids"]
    return facts


def load_finished(trainer: "HindiLanguageModelTrainer", path: Path) -> TrainerState:
    """Load the weights of a sharded checkpoint, outside of the training loop, which has no step left; return its state.

    Every process must call it.
    """
    state: TrainerState = TrainerState.load_from_json(str(path / "trainer_state.json"))
    # Private: what the stock loop does before its first step.
    trainer._prepare_for_training(state.max_steps, trainer.get_train_dataloader(), str(path))
    return state


def _conditions(trainer: "HindiLanguageModelTrainer") -> dict[str, Any]:
    return {"config": trainer.config, "processes": trainer.args.world_size, "precision": trainer.args.precision}
