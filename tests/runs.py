"""Start, move, cut short and compare runs."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

ROOT = Path(__file__).parent.parent
# Training settings: an evaluation and a checkpoint at every so many-th step.
EVERY_STEP, EVERY_OTHER_STEP, EVERY_FOURTH_STEP = (
    {"eval_strategy": "steps", "eval_steps": steps, "save_strategy": "steps", "save_steps": steps}
    for steps in (1, 2, 4)
)
TIMES = {"seconds", "tokens_per_second", "peak_memory_bytes"}


def results_of(folder: Path) -> dict[str, Any]:
    """Return results.json without its times."""
    results: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    results["training"] = {name: value for name, value in results["training"].items() if name not in TIMES}
    return results


def all_events_of(folder: Path) -> list[dict[str, Any]]:
    """Return the events of metrics.jsonl."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def events_of(folder: Path) -> list[dict[str, Any]]:
    """Return the events of metrics.jsonl without their speeds."""
    speeds = ("runtime", "per_second")
    return [{name: v for name, v in event.items() if not name.endswith(speeds)} for event in all_events_of(folder)]


def assert_equal_runs(one: Path, other: Path) -> None:
    """Assert that two runs ended with the same bits and the same figures."""
    first, second = (load_file(folder / "final_model" / "model.safetensors") for folder in (one, other))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    saved, again = (
        {path.relative_to(folder): path.read_bytes() for path in folder.glob("revisions/*/*")}
        for folder in (one, other)
    )
    assert saved == again
    assert results_of(one) == results_of(other)
    assert events_of(one) == events_of(other)


def back_to(folder: Path, target: Path, step: int) -> None:
    """Copy a finished run to `target` as it would be had it been killed after writing the checkpoint of `step`."""
    shutil.copytree(folder, target)
    for path in (target / "checkpoints").glob("checkpoint_step_*.pt"):
        if int(path.stem.rsplit("_", 1)[1]) > step:
            path.unlink()
    (target / "checkpoints" / "checkpoint_best.pt").unlink()
    best = max(
        (torch.load(path, weights_only=True) for path in (target / "checkpoints").glob("*.pt")),
        key=lambda checkpoint: checkpoint["step"],
    )["trainer_state"]["best_global_step"]
    shutil.copy(target / "checkpoints" / f"checkpoint_step_{best}.pt", target / "checkpoints" / "checkpoint_best.pt")
    shutil.rmtree(target / "final_model")
    for name in ("results.json", "training.json"):
        (target / name).unlink()
    recipe = json.loads((target / "recipe.json").read_text(encoding="utf-8"))
    recipe["training"]["output_dir"] = str(target)
    (target / "recipe.json").write_text(json.dumps(recipe), encoding="utf-8")


def command(recipe: Path, *, processes: int = 1, module: str = "hindi_babylm.run") -> list[str]:
    """Return the command line of a run on `processes` processes."""
    if processes == 1:
        return [sys.executable, "-m", module, str(recipe)]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    return [sys.executable, *launcher, "-m", module, str(recipe), "--use_cpu", "true"]


def environment(**extra: str) -> dict[str, str]:
    """Return the surroundings of a subprocess: the package from this checkout, one thread a process."""
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | extra


def finish(recipe: Path, *, processes: int = 1, module: str = "hindi_babylm.run") -> "subprocess.CompletedProcess[str]":
    """Run a recipe to its end."""
    words = command(recipe, processes=processes, module=module)
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment(), cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def moved(recipe: Path, name: str) -> Path:
    """Return a copy of a recipe whose run folder is another."""
    content = json.loads(recipe.read_text(encoding="utf-8"))
    content["training"]["output_dir"] = str(recipe.parent / name)
    path = recipe.with_name(f"{name}.json")
    path.write_text(json.dumps(content), encoding="utf-8")
    return path
