"""The stock Trainer's sharded checkpoints `checkpoint-{step}` of FSDP and DeepSpeed: which is whole, and its facts."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hindi_babylm.console import warn
from hindi_babylm.storage import UserError, differing_keys, read_json, write_json

if TYPE_CHECKING:
    from hindi_babylm.training.trainer import HindiLanguageModelTrainer

FACTS = "hindi_babylm.json"


def newest_sharded_checkpoint(folder: Path) -> str | None:
    """Return the newest folder `checkpoint-{step}` that all processes came to the end of writing."""
    # The stock search takes the highest number, which a kill may have left half written.
    for path in sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rsplit("-", 1)[1]), reverse=True):
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
        write_json(
            path / FACTS, {**_conditions(trainer), "seconds": trainer.seconds, "run_ids": trainer.trackers.run_ids}
        )


def read_facts(trainer: "HindiLanguageModelTrainer", path: Path) -> float:
    """Take up the tracker runs of a sharded checkpoint and return the seconds trained before it.

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
    return float(facts["seconds"])


def _conditions(trainer: "HindiLanguageModelTrainer") -> dict[str, Any]:
    return {"config": trainer.config, "processes": trainer.args.world_size, "precision": trainer.args.precision}
