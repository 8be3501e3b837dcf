"""What do the curricula do to a training? Every row reads the same words as often, in another order.

Run `python -m benchmarks.curriculum_training [--rows NAME ...] [--seeds 0 1 2] [--folder runs/curricula] [--key value
...]`. Each row is the real command over `recipes/base.json` with `SCALE` laid over it, in a folder of its own: a row
that is finished is not run again. Printed and written to `curricula.md` of the folder: means and ranges over seeds, and
the difference from `none`, seed by seed.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.efficiency import bits, spread
from hindi_babylm.curriculum.difficulty import DIFFICULTIES, NO_CURRICULUM
from hindi_babylm.storage import read_json

EPOCHS = 10
SCALE = [
    *("--max_words", "40000", "--vocab_size", "4096", "--block_size", "128", "--report_to", "none"),
    *("--model_config", json.dumps({"n_layer": 2, "n_embd": 128, "n_head": 2}), "--learning_rate", "0.003"),
    *("--global_batch_size", "8", "--tasks", "[]", "--eval_strategy", "steps", "--eval_steps", "60"),
    *("--save_strategy", "best", "--save_total_limit", "1"),
]
# A pass over a third of the blocks is an epoch of its own, so ten over all of them are thirty.
PACED = {
    "staged": ["--stage_epochs", "10", "10", "10", "--num_train_epochs", "30"],
    "cumulative": ["--pacing", "cumulative", "--stage_epochs", "2", "5", "6", "--num_train_epochs", "30"],
    "competence": ["--pacing", "competence", "--competence_epochs", "5", "--num_train_epochs", str(EPOCHS)],
}
ROWS = {
    NO_CURRICULUM: ["--num_train_epochs", str(EPOCHS)],
    **{f"{name}, {pacing}": ["--curriculum", name, *flags] for pacing, flags in PACED.items() for name in DIFFICULTIES},
}


def output_of(folder: Path, name: str, seed: int) -> Path:
    """Return the run folder of a row."""
    return folder / f"{name.replace(', ', '-')}-{seed}"


def run_row(name: str, seed: int, folder: Path, flags: Sequence[str]) -> dict[str, Any]:
    """Run a row with a seed unless it is finished, and return its results."""
    output = output_of(folder, name, seed)
    command = [sys.executable, "-m", "hindi_babylm.run", "recipes/base.json", *SCALE, *ROWS[name], *flags]
    subprocess.run([*command, "--seed", str(seed), "--output_dir", str(output)], check=True, stdout=sys.stderr)
    results: dict[str, Any] = read_json(output / "results.json")
    return results


def table(runs: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> str:
    """Return the rows as Markdown; a difference is that of the runs of one seed."""
    lines = [
        "| curriculum, pacing | seeds | words seen | best step of | test bits a byte | less `none`, seed by seed |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, results in runs.items():
        both = results.keys() & runs.get(NO_CURRICULUM, {}).keys() if name != NO_CURRICULUM else ()
        differences = [bits(results[seed]) - bits(runs[NO_CURRICULUM][seed]) for seed in sorted(both)]
        training = [run["training"] for run in results.values()]
        best = statistics.median(run["model"]["step"] for run in results.values())
        cells = [
            name,
            str(len(results)),
            f"{statistics.mean(run['words_seen'] for run in training):,.0f}",
            f"{best:.0f} of {training[0]['steps']}",
            spread([bits(run) for run in results.values()], 4),
            spread(differences, 4) if differences else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Run the rows that are asked for, and write the table of all that are there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=ROWS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--folder", type=Path, default=Path("runs/curricula"))
    arguments, flags = parser.parse_known_args()
    for seed in arguments.seeds:
        for name in arguments.rows:
            print(f"{name}, seed {seed}: {bits(run_row(name, seed, arguments.folder, flags)):.4f}", flush=True)
    runs = {}
    for name in ROWS:
        places = {seed: output_of(arguments.folder, name, seed) / "results.json" for seed in range(10)}
        runs[name] = {seed: read_json(path) for seed, path in places.items() if path.exists()}
    told = table({name: found for name, found in runs.items() if found})
    (arguments.folder / "curricula.md").write_text(told + "\n", encoding="utf-8")
    print(told)


if __name__ == "__main__":
    main()
