"""What does each technique of `recipes/efficient.json` gain, at one small scale for all? Two CPU cores suffice.

Run `python -m benchmarks.efficiency [--rows NAME ...] [--seeds 0 1 2] [--folder runs/efficiency] [--key value ...]`.
Each row is the real command over a recipe with `SCALE` laid over it, in a folder of its own: a row that is finished is
not run again, an interrupted one continues. All rows read the same words in the same splits for the same ten epochs,
with models of the same size within 10 %. Written to the folder: `efficiency.md`, a row a technique over all seeds,
and `efficiency.svg`, the validation bits a byte of the two recipes over words seen, beside the trigram's.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hindi_babylm.storage import read_json

SCALE = [
    *("--max_words", "75000", "--vocab_size", "4096", "--block_size", "128", "--report_to", "none"),
    *("--save_total_limit", "1"),
]
GPT2 = ["--model_config", json.dumps({"n_layer": 4, "n_embd": 192, "n_head": 4})]
LLAMA = [
    *("--architecture", "llama", "--model_config"),
    json.dumps({"num_hidden_layers": 4, "hidden_size": 192, "intermediate_size": 512, "num_attention_heads": 4}),
]
MUON = ["--muon_learning_rate", "0.008", "--learning_rate", "0.008", "--adam_beta2", "0.95"]
DECAY = [*MUON, "--weight_decay", "1.2"]

# Row -> recipe and flags; most rows add one thing to an earlier one.
ROWS: dict[str, tuple[str, list[str]]] = {
    "specification": ("base", GPT2),
    "rate 3e-3": ("base", [*GPT2, "--learning_rate", "0.003"]),
    "Muon": ("base", [*GPT2, *MUON]),
    "Muon, decay 0.4": ("base", [*GPT2, *MUON, "--weight_decay", "0.4"]),
    "Muon, decay 1.2": ("base", [*GPT2, *DECAY]),
    "Muon, decay 1.2, dropout 0.3": ("base", [*GPT2, *DECAY, "--dropout", "0.3"]),
    "Muon, decay 1.2, Llama": ("base", [*LLAMA, *DECAY]),
    "Muon, decay 1.2, repacked": ("base", [*GPT2, *DECAY, "--repack", "true"]),
    "Muon, decay 1.2, averaged": ("base", [*GPT2, *DECAY, "--ema_decay", "0.99"]),
    "Muon, decay 1.2, documents apart": ("base", [*GPT2, *DECAY, "--document_attention", "true"]),
    "efficient": ("efficient", LLAMA),
}


def output_of(folder: Path, name: str, seed: int) -> Path:
    """Return the run folder of a row."""
    return folder / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}"


def run_row(name: str, seed: int, folder: Path, flags: Sequence[str]) -> dict[str, Any]:
    """Run a row with a seed unless it is finished, and return its results."""
    recipe, own = ROWS[name]
    output = output_of(folder, name, seed)
    command = [sys.executable, "-m", "hindi_babylm.run", f"recipes/{recipe}.json", *SCALE, *own, *flags]
    subprocess.run([*command, "--seed", str(seed), "--output_dir", str(output)], check=True, stdout=sys.stderr)
    results: dict[str, Any] = read_json(output / "results.json")
    return results


def table(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Return the rows as Markdown: means over seeds, and their range where there are several."""
    lines = [
        "| row | seeds | parameters | test bits a byte | against the specification | trigram | pairs, macro % | s |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    reference = statistics.mean(bits(run) for run in runs["specification"]) if "specification" in runs else math.nan
    for name, results in runs.items():
        mean = statistics.mean(map(bits, results))
        cells = [
            name,
            str(len(results)),
            f"{results[0]['model']['parameters']:,}",
            spread([bits(run) for run in results], 4),
            f"{100 * (mean / reference - 1):+.1f} %",
            f"{results[0]['test']['trigram_bits_per_byte']['value']:.4f}",
            spread([run["minimal_pairs"]["hindi_pairs_pud"]["macro"]["value"] for run in results], 1),
            f"{statistics.median(run['training']['seconds'] for run in results):.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def bits(run: Mapping[str, Any]) -> float:
    """Return the test bits a byte of a run."""
    return float(run["test"]["bits_per_byte"]["value"])


def spread(values: Sequence[float], digits: int) -> str:
    """Return the mean, and the lowest and highest of several values."""
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def draw(folder: Path, names: Sequence[str], seed: int) -> None:
    """Draw the validation bits a byte of rows over words seen, and the line of the trigram."""
    import matplotlib.figure

    drawing = matplotlib.figure.Figure(figsize=(8, 5), layout="constrained")
    axes = drawing.subplots()
    for name in names:
        output = output_of(folder, name, seed)
        results, corpus = read_json(output / "results.json"), read_json(output / "corpus.json")
        kept = corpus["kept"]["validation"].values()
        # Every token but a block's first is predicted, so nats a token become bits a byte by the split's own ratio.
        ratio = sum(entry["tokens"] for entry in kept) / sum(entry["bytes"] for entry in kept) / math.log(2)
        events = [json.loads(line) for line in (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        points = [(event["words_seen"], event["eval_loss"] * ratio) for event in events if "eval_loss" in event]
        axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name)
    axes.axhline(
        results["validation"]["trigram_bits_per_byte"]["value"], color="black", linestyle="--", label="trigram"
    )
    axes.set(xlabel="words seen", ylabel="validation bits a byte (EOS counted in the curves)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    drawing.savefig(folder / "efficiency.svg", metadata={"Date": None})


def main() -> None:
    """Run the rows that are asked for, and write the table and the drawing of all that are there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=ROWS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--folder", type=Path, default=Path("runs/efficiency"))
    arguments, flags = parser.parse_known_args()
    for seed in arguments.seeds:
        for name in arguments.rows:
            print(f"{name}, seed {seed}: {bits(run_row(name, seed, arguments.folder, flags)):.4f}", flush=True)
    runs = {}
    for name in ROWS:
        places = (output_of(arguments.folder, name, seed) / "results.json" for seed in range(10))
        runs[name] = [read_json(path) for path in places if path.exists()]
    runs = {name: found for name, found in runs.items() if found}
    told = table(runs)
    (arguments.folder / "efficiency.md").write_text(told + "\n", encoding="utf-8")
    drawn = [name for name in ("specification", "efficient") if name in runs]
    if drawn:
        draw(arguments.folder, drawn, arguments.seeds[0])
    print(told)


if __name__ == "__main__":
    main()
