"""Everything that waits for a GPU, in one command that may be stopped and given again: tests, benchmarks, recipes.

Run `python -m benchmarks.gpu [--minutes 9] [--parts NAME ...] [--folder runs/gpu] [--key value ...]`. It takes up the
parts in turn until the minutes are over and ends with exit code 75 (the same command goes on) while some are left, then
with 0, or with 1 when one has failed. A part that is done is not done again; a recipe goes on from its last checkpoint,
and flags beyond those above are its own. `gpu.md` of the folder has the figures of all that is done, and NAME.log what
a part printed. With `--dry_run` the commands are printed and checked, on any machine.
"""

import argparse
import importlib
import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hindi_babylm.recipe.parsing import parse_recipe
from hindi_babylm.signals import EXIT_INTERRUPTED
from hindi_babylm.storage import exit_on_user_error, read_json, write_json

RECIPES = ("quickstart", "small", "base", "efficient", "masked", "large")
# A run needs so long after a signal to write its checkpoint; what is left of a slice must be longer to begin a part.
GRACE_SECONDS, SHORTEST_SECONDS = 45.0, 60.0
DONE = "done.json"


def commands(folder: Path, flags: Sequence[str]) -> dict[str, list[str]]:
    """Return the parts by name: the words of a command, of which those of recipes write run folders in `folder`."""
    python = [sys.executable, "-m"]
    return {
        "tests": [*python, "pytest", "-q", "-m", "gpu", "tests/test_gpu.py"],
        "document_attention": [*python, "benchmarks.document_attention"],
        "checkpoint": [*python, "benchmarks.checkpoint", "recipes/base.json"],
        **{
            name: [
                *(*python, "hindi_babylm.run", f"recipes/{name}.json", "--output_dir", str(folder / name)),
                *("--save_total_limit", "1", *flags),
            ]
            for name in RECIPES
        },
    }


def check(words: Sequence[str]) -> None:
    """Raise what is wrong with a part: a recipe is parsed with its flags, tests are collected, a module is found."""
    module, *rest = words[words.index("-m") + 1 :]
    if module == "hindi_babylm.run":
        parse_recipe(rest[0], rest[1:])
    elif module == "pytest":
        subprocess.run([*words, "--collect-only"], check=True, stdout=subprocess.DEVNULL)
    else:
        importlib.import_module(module)


def run_part(words: Sequence[str], log: Path, *, seconds: float) -> int | None:
    """Run a command for so many seconds, its output at the end of `log`; return its exit code, None when stopped."""
    with open(log, "a", encoding="utf-8") as file:
        part = subprocess.Popen(words, stdout=file, stderr=subprocess.STDOUT)
        try:
            code = part.wait(timeout=max(1.0, seconds))
        except subprocess.TimeoutExpired:
            part.send_signal(signal.SIGTERM)  # a run writes a checkpoint then
            try:
                part.wait(timeout=GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                part.kill()
                part.wait()
            return None
    return None if code == EXIT_INTERRUPTED else code


def table(folder: Path, done: Mapping[str, int]) -> str:
    """Return the figures of the recipes that are done, and what the other parts ended with, as Markdown."""
    lines = [
        "| recipe | device | precision | parameters | steps | s | tokens/s | peak, GB | test bits a byte | commit |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for name in RECIPES:
        if done.get(name) == 0:
            results, machine = read_json(folder / name / "results.json"), read_json(folder / name / "environment.json")
            lines.append(f"| {' | '.join(row(name, results, machine))} |")
    others = [f"{name}: {'passed' if code == 0 else f'failed ({code})'}, see {name}.log" for name, code in done.items()]
    return "\n".join([*lines, "", *others])


def row(name: str, results: Mapping[str, Any], machine: Mapping[str, Any]) -> list[str]:
    """Return the cells of a recipe; a masked model has pseudo bits."""
    training, test = results["training"], results["test"]
    key = "bits_per_byte" if "bits_per_byte" in test else "pseudo_bits_per_byte"
    return [
        name,
        ", ".join(machine["gpus"]) or "CPU",
        training["precision"],
        f"{results['model']['parameters']:,}",
        f"{training['steps']:,}",
        f"{training['seconds']:,.0f}",
        f"{training['tokens_per_second']:,.0f}",
        f"{training['peak_memory_bytes'] / 1e9:.2f}",
        f"{test[key]['value']:.4f}{' (pseudo)' if key.startswith('pseudo') else ''}",
        str(machine["commit"])[:7],
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """Go through the parts that are left, within the minutes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--parts", nargs="+")
    parser.add_argument("--folder", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--dry_run", action="store_true")
    arguments, flags = parser.parse_known_args(argv)
    parts, folder = commands(arguments.folder, flags), arguments.folder
    if unknown := set(arguments.parts or ()) - parts.keys():
        parser.error(f"--parts: there is no {min(unknown)}; there are {', '.join(parts)}")
    asked = {name: words for name, words in parts.items() if name in (arguments.parts or parts)}
    with exit_on_user_error():
        for name, words in asked.items():
            if arguments.dry_run:
                check(words)
                print(f"{name}: {shlex.join(words)}", flush=True)
    if arguments.dry_run:
        return
    end = time.monotonic() + 60 * arguments.minutes - GRACE_SECONDS
    folder.mkdir(parents=True, exist_ok=True)
    done: dict[str, int] = read_json(folder / DONE) if (folder / DONE).exists() else {}
    for name, words in asked.items():
        left = end - time.monotonic()
        if name in done or left < SHORTEST_SECONDS:
            continue
        print(f"{name}: {shlex.join(words)}", flush=True)
        code = run_part(words, folder / f"{name}.log", seconds=left)
        if code is not None:
            done[name] = code
            write_json(folder / DONE, done)
            (folder / "gpu.md").write_text(table(folder, done) + "\n", encoding="utf-8")
    missing = [name for name in asked if name not in done]
    print(f"Done: {json.dumps(done)}; left: {', '.join(missing) or 'nothing'}. Figures: {folder / 'gpu.md'}")
    sys.exit(EXIT_INTERRUPTED if missing else int(any(done[name] for name in asked)))


if __name__ == "__main__":
    main()
