"""`hindi-babylm find-lr RECIPE`: a sweep of learning rates over a recipe's first steps, and a suggestion."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hindi_babylm.commands import carry_out
from hindi_babylm.console import show
from hindi_babylm.recipe.parsing import flag_words, parse_recipe, read_flags
from hindi_babylm.recipe.sections import Recipe
from hindi_babylm.run import set_up_console, trainer_aside
from hindi_babylm.storage import UserError, write_atomically, write_json

USAGE = """\
usage: hindi-babylm find-lr RECIPE [--start_lr X] [--end_lr X]
           [--num_steps N] [--key value ...]

Train the recipe's model for a few steps at a learning rate that grows with
every step, and suggest the one at which the loss falls fastest (the range
test of Smith 2017). Data, model, batch, precision and processes are those of
the run; its folder is not touched, and nothing of the training is kept.

  --start_lr X    rate of the first step [1e-06]
  --end_lr X      rate of the last one [1]
  --num_steps N   optimizer steps between them, 10 or more [100]
  --key value     any key of the recipe, as for run
  --help          this page

Example:
  hindi-babylm find-lr recipes/quickstart.json
  accelerate launch -m hindi_babylm find-lr recipes/base.json

Written beside the run folder, to OUTPUT_DIR-find-lr: sweep.json with rate,
loss and smoothed loss of every step and the suggestion, sweep.svg, sweep.png.

The last line is the suggestion as flags for run: the peak of a schedule with
warmup. It is good to a factor of about 3: where it matters, train shortly at
a third and at three times of it. The loss is smoothed over about 10 steps; at
4 times its lowest, or when it is no number any more, the sweep ends. With
muon_learning_rate set both rates are swept in the proportion that the recipe
gives them. Another batch, size or optimizer has another best rate."""
OWN_FLAGS = ("start_lr", "end_lr", "num_steps")


def main(argv: Sequence[str] | None = None) -> None:
    """Run `hindi-babylm find-lr RECIPE [--start_lr X] [--end_lr X] [--num_steps N] [--key value ...]`."""
    carry_out(argv, find, page=lambda: USAGE)


def find(words: Sequence[str]) -> dict[str, Any]:
    """Carry out the command line, write its files, print the suggestion, and return what `sweep.json` holds."""
    if not words or words[0].startswith("-"):
        raise UserError("no recipe: hindi-babylm find-lr recipes/quickstart.json (see --help)")
    flags = read_flags(words[1:])
    sweep = _sweep_of(flags)
    others = [word for name in flags if name not in OWN_FLAGS for word in flag_words(name, flags[name])]
    recipe = parse_recipe(words[0], others)
    if recipe.training.get("resume_from_checkpoint") is not None:
        raise UserError(
            f"{recipe.place('resume_from_checkpoint')}: find-lr sweeps from fresh weights: leave "
            "resume_from_checkpoint out"
        )
    set_up_console(recipe)
    with trainer_aside(recipe) as (_, trainer):
        found = trainer.find_learning_rate(**sweep)
        is_main = trainer.is_world_process_zero()
        trainer.accelerator.wait_for_everyone()
    record = {"format": 1, "recipe": recipe.resolved(), **sweep, **found}
    if is_main:
        _write(record, recipe)
    return record


def _sweep_of(flags: dict[str, list[str]]) -> dict[str, Any]:
    """Return the range and length of the sweep that the flags, or else the defaults, ask for."""
    sweep: dict[str, Any] = {"start_lr": 1e-6, "end_lr": 1.0, "num_steps": 100}
    for name in sweep.keys() & flags.keys():
        given, kind = " ".join(flags[name]), type(sweep[name])
        try:
            sweep[name] = kind(given)
        except ValueError:
            sweep[name] = math.nan
        if not 0 < sweep[name] < math.inf:
            expected = "a whole number" if kind is int else "a number above 0"
            raise UserError(f"command line: --{name} {given}: expected {expected}")
    if sweep["num_steps"] < 10:
        raise UserError(f"command line: --num_steps {sweep['num_steps']}: expected 10 or more")
    if sweep["start_lr"] >= sweep["end_lr"]:
        raise UserError(
            f"command line: --start_lr {sweep['start_lr']:g} is not below --end_lr {sweep['end_lr']:g}: lower the "
            "first, or raise the second"
        )
    return sweep


def _write(record: dict[str, Any], recipe: Recipe) -> None:
    """Write `sweep.json` and the plots, and print the suggestion last."""
    folder = recipe.output_dir.with_name(f"{recipe.output_dir.name}-find-lr")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror}: choose another --output_dir") from error
    files = [folder / "sweep.json"]
    write_json(files[0], record)
    for kind in ("svg", "png"):
        files.append(folder / f"sweep.{kind}")
        plot_sweep(record, files[-1])
    means, rates = record["smoothed_losses"], record["rates"]
    lowest = means.index(min(means))
    end = f"diverged at {rates[-1]:.1e}" if record["diverged"] else f"{means[-1]:.3f} at {rates[-1]:.1e}"
    show(f"\nLoss: {means[0]:.3f} at {rates[0]:.1e}, lowest {means[lowest]:.3f} at {rates[lowest]:.1e}, {end}")
    for file in files:
        show(str(file))
    show("Suggestion: " + " ".join(f"--{name} {rate:g}" for name, rate in record["suggestion"].items()))


def plot_sweep(record: dict[str, Any], path: Path) -> None:
    """Draw loss and smoothed loss over the rate, and the suggestion, as SVG or PNG by the ending of `path`."""
    import matplotlib
    import matplotlib.figure

    kind = path.suffix.removeprefix(".")
    # Text stays text, and the same sweep gives the same file.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "hindi_babylm"}):
        drawing = matplotlib.figure.Figure(figsize=(7, 4.5), layout="constrained", dpi=150)
        axes = drawing.subplots()
        axes.plot(record["rates"], record["losses"], alpha=0.35, label="loss of the step")
        axes.plot(record["rates"], record["smoothed_losses"], label="smoothed")
        rate = record["suggestion"]["learning_rate"]
        axes.axvline(rate, linestyle="--", color="black", label=f"suggestion: {rate:g}")
        lowest, first = min(record["losses"]), record["losses"][0]
        # Without a limit a divergence would press the fall into a line.
        axes.set(xscale="log", ylim=(lowest - 0.1 * (first - lowest), first + 0.5 * (first - lowest)))
        axes.set(xlabel="learning rate", ylabel="loss (nats per token)")
        axes.grid(alpha=0.3)
        axes.legend()
        with write_atomically(path) as temporary:
            drawing.savefig(temporary, format=kind, metadata={"Date": None} if kind == "svg" else None)
