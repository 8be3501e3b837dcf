"""The checkpoint that a training goes on from: the one that was asked for, or the newest whole one of its folder."""

from typing import TYPE_CHECKING

from hindi_babylm.console import say, warn
from hindi_babylm.storage import RunFolder
from hindi_babylm.training.checkpoint import newest_checkpoint
from hindi_babylm.training.sharded import newest_sharded_checkpoint

if TYPE_CHECKING:
    from hindi_babylm.training.trainer import HindiLanguageModelTrainer


def checkpoint_to_resume(trainer: "HindiLanguageModelTrainer", folder: RunFolder, asked: str | None) -> str | None:
    """Return the path of the checkpoint, or None to begin at step 0; the main process says what it is."""
    is_main = trainer.is_world_process_zero()
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        if is_main:
            warn("under FSDP or DeepSpeed checkpoints are transformers' folders, checkpoint-{step}, and no .pt files")
        asked = asked or newest_sharded_checkpoint(folder.path)
    elif asked is None:
        found, refused = newest_checkpoint(folder.checkpoints)
        asked = str(found) if found else None
        for line in refused if is_main else ():
            warn(f"passed over {line}")
    if asked is not None and is_main:
        say(f"Resuming from {asked}")
    return asked
