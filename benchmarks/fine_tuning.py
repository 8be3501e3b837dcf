"""Which learning rate fine-tunes best, judged by dev and not by test?

Run `python -m benchmarks.fine_tuning MODEL ... [--tasks T ...] [--seeds N] [--texts N]`: models are run folders, model
folders or hub ids (RESULTS.md has the commands that trained ours), tasks are names or folders ([sib200_hin]), seeds
one a rate unless told otherwise, and of the training texts all, or the first N. But for the rate everything is
`PROTOCOL`. A row a model and task: macro-F1 on dev by rate, of several seeds the mean and each, and the seconds.
"""

import argparse
import dataclasses
import statistics
import time
from pathlib import Path

from hindi_babylm.console import quiet_bars, quiet_warnings
from hindi_babylm.evaluation.classification import Labelled
from hindi_babylm.evaluation.fine_tuning import PROTOCOL, score_classification
from hindi_babylm.evaluation.tasks import KINDS, find_task

RATES = (3e-5, 1e-4, 3e-4, 1e-3)


def main() -> None:
    """Print a row a model and task."""
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="+")
    parser.add_argument("--tasks", nargs="+", default=["sib200_hin"])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--texts", type=int)
    asked = parser.parse_args()
    quiet_warnings()
    quiet_bars()
    from hindi_babylm.evaluation.opening import open_scorer

    print(f"| model | task | {' | '.join(f'{rate:g}' for rate in RATES)} | seconds |")
    for name in asked.models:
        final = Path(name) / "final_model"
        scorer = open_scorer(str(final) if final.exists() else name)
        for place in asked.tasks:
            task = KINDS["fine_tuning"].load(find_task(place).place)
            train = Labelled(task.train.texts[: asked.texts], task.train.labels[: asked.texts])
            task = dataclasses.replace(task, train=train)
            start, cells = time.monotonic(), []
            for rate in RATES:
                PROTOCOL["learning_rate"] = rate
                figures, _ = score_classification(scorer, task, seeds=asked.seeds)
                dev = [seed["dev_macro_f1"] for seed in figures["seeds"]]
                single = f" ({', '.join(f'{value:.1f}' for value in dev)})" if len(dev) > 1 else ""
                cells.append(f"{statistics.mean(dev):.1f}{single}")
                print(f"  {task.name}, {rate:g}: {cells[-1]}", flush=True)
            print(f"| {name} | {task.name} | {' | '.join(cells)} | {time.monotonic() - start:.0f} |", flush=True)


if __name__ == "__main__":
    main()
