"""Say what came out, in text: the environment record, the closing table and that of a plan."""

import importlib.metadata
import os
import platform
import subprocess
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hindi_babylm.console import duration
from hindi_babylm.reporting.report import figure, floors, size

RECORDED_PACKAGES = ("torch", "transformers", "datasets", "accelerate", "tokenizers", "evaluate", "numpy", "wandb")


def environment(*, precision: str, processes: int) -> dict[str, Any]:
    """Return what a reader needs to repeat the run: versions, commit, hardware, command line."""
    import torch

    import hindi_babylm

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "hindi_babylm": hindi_babylm.__version__,
        "commit": _commit(Path(hindi_babylm.__file__).parent),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": {"cores": os.cpu_count(), "torch_threads": torch.get_num_threads()},
        "gpus": gpus,
        "processes": processes,
        "precision": precision,
        "packages": {name: _version(name) for name in RECORDED_PACKAGES},
        "command": sys.argv,
    }


def summary(results: Mapping[str, Any], *, folder: Path) -> str:
    """Return the closing table of a run, at most 80 columns where the paths allow it."""
    test, training = results["test"], results["training"]
    rows: list[tuple[str, str]] = [
        ("model", f"{results['model']['architecture']}, {results['model']['parameters'] / 1e6:.1f}M parameters"),
        (
            "trained",
            f"{training['steps']:,} steps, {training['epochs']:.2f} epochs, {duration(training['seconds'])}, "
            f"in {training['precision']}",
        ),
        ("seen", f"{training['words_seen']:,.0f} words, {training['tokens']:,} tokens"),
        ("speed", f"{training['tokens_per_second']:,.0f} tokens/s, evaluating and saving included"),
        ("peak memory", size(training["peak_memory_bytes"])),
        (
            "weights",
            f"{results['model']['which']}, of step {results['model']['step']:,}"
            + (", averaged" if results["model"]["weights"] == "ema" else ""),
        ),
        *(_pseudo_rows(results) if "pseudo_loss" in test else _likelihood_rows(results)),
    ]
    lines = ["", *_aligned(rows + _task_rows(results))]
    lines += ["", "Continuations:"] if "continuations" in results else []
    for sample in results.get("continuations", []):
        text = f"{sample['prompt']} |{' '.join(sample['continuation'].split())}"
        lines += textwrap.wrap(text, 80, initial_indent="  ", subsequent_indent="    ", break_long_words=False)
    lines += [
        "",
        f"Report:      {folder / 'report.html'}",
        f"Model:       {folder / 'final_model'}",
        f"Figures:     {folder / 'results.json'}",
        f"Every step:  {folder / 'metrics.jsonl'}",
        f"Corpus:      {folder / 'corpus.json'}",
    ]
    return "\n".join(lines)


def evaluation_summary(results: Mapping[str, Any], *, folder: Path) -> str:
    """Return the table of `hindi-babylm evaluate`, at most 80 columns where names and paths allow it."""
    model = results["model"]
    rows = [
        ("model", model["name"]),
        ("", f"{model['architecture']}, {model['objective']}, {model['parameters'] / 1e6:.1f}M parameters"),
        ("window", f"{model['block_size']:,} tokens, after {model['first_context']}"),
    ]
    if "test" in results:
        test = results["test"]
        masked = "pseudo_loss" in test
        rows.append(("texts", f"{test['documents']:,} documents, {test['words']:,} words, {test['tokens']:,} tokens"))
        rows += _pseudo_rows(results) if masked else _likelihood_rows(results)
        kind, prefix = ("pseudo ", "pseudo_") if masked else ("", "")
        for unit in ("character", "akshara"):
            rows.append((f"test {kind}bits/{unit}", figure(test[f"{prefix}bits_per_{unit}"], 3)))
        for source, entry in test.get("by_source", {}).items():
            rows.append(
                (f"  {source}", f"{entry[f'{prefix}bits_per_byte']:.3f} bits a byte of {entry['bytes']:,} bytes")
            )
        if "trigram_bits_per_byte" not in test:
            rows.append(("floors", "none: --train_texts names what the model was trained on"))
    rows += _task_rows(results)
    lines = ["", *_aligned(rows), "", f"Figures:  {folder / 'results.json'}", f"Items:    {folder / 'items'}"]
    return "\n".join(lines)


def _aligned(rows: Sequence[tuple[str, str]]) -> list[str]:
    width = max(len(name) for name, _ in rows) + 2
    return [f"{name:<{width}}{value}" for name, value in rows]


def _task_rows(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the rows of the tasks of every kind."""
    rows = []
    for suite, score in results["minimal_pairs"].items():
        rows += _pair_rows(suite, score)
    for suite, score in results.get("multiple_choice", {}).items():
        rows.append((suite, f"{figure(score['accuracy'], 1)} % of {score['questions']} (chance {score['chance']:.1f})"))
        rows.append(("  by NLL a byte", f"{figure(score['per_byte']['accuracy'], 1)} %"))
        if "trigram" in score:
            rows.append(("  trigram floor", f"{figure(score['trigram']['accuracy'], 1)} %"))
    for suite, score in results.get("fine_tuning", {}).items():
        rows.append((suite, f"macro-F1 {figure(score['macro_f1'], 1)}, {len(score['seeds'])} seeds fine-tuned"))
        rows += [
            (f"  {name.replace('_', ' ')}", f"macro-F1 {figure(score[name]['macro_f1'], 1)}")
            for name in ("bag_of_words", "majority")
        ]
    return rows


def _pair_rows(suite: str, score: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the rows of a suite of minimal pairs, and of what its accuracy is to be held against."""
    rows = [(suite, f"{figure(score['macro'], 1)} % (macro average; chance 50)")]
    told = {"per_byte": "by bits per byte", "length_only": "by length alone", "trigram": "trigram floor"}
    rows += [(f"  {name}", f"{figure(score[key]['macro'], 1)} %") for key, name in told.items() if key in score]
    for name, entry in score["phenomena"].items():
        ties = f", {entry['ties']} ties" if entry["ties"] else ""
        rows.append((f"  {name}", f"{entry['accuracy']:.1f} % of {entry['pairs']} pairs{ties}"))
        for forms, half in score.get("halves", {}).get(name, {}).items():
            rows.append((f"    {forms}", f"{half['minimum']:.1f} % in the weaker direction"))
    return rows


def plan_table(plan: Mapping[str, Any]) -> str:
    """Return the table of a dry run, at most 80 columns: data, length of the training, what it sees, memory, hours."""
    splits, memory = plan["splits"], plan["memory"]
    lines = ["", f"{'split':<12}{'documents':>12}{'words':>14}{'tokens':>14}{'tokens/word':>14}{'blocks':>12}"]
    for name, row in splits.items():
        ratio = row["tokens"] / row["words"]
        lines.append(
            f"{name:<12}{row['documents']:>12,}{row['words']:>14,}{row['tokens']:>14,}{ratio:>14.2f}{row['blocks']:>12,}"
        )
    predicted = "predicted " if plan["objective"] == "causal" else ""
    rows = [
        ("model", f"{plan['parameters']:,} parameters"),
        ("steps", f"{plan['steps']:,} = {plan['epochs']:.2f} epochs of {plan['steps_per_epoch']:,}"),
        ("warmup", f"{plan['warmup']:,} steps"),
        ("will be seen", f"{plan['words_seen']:,.0f} words, {plan['tokens']:,} {predicted}tokens"),
    ]
    lines += ["", *(f"{name:<16}{value}" for name, value in rows)]
    if "stages" in plan:
        lines += ["", f"{'stage':<6}{'blocks':>8}{'epochs':>8}{'steps':>9}{'words seen':>13}  first texts begin"]
        for number, stage in enumerate(plan["stages"], start=1):
            figures = f"{stage['blocks']:>8,}{stage['epochs']:>8.2f}{stage['steps']:>9,}{stage['words_seen']:>13,.0f}"
            first, *others = map(_cut, stage["texts"])
            lines += [f"{number:<6}{figures}  {first}", *(" " * 46 + text for text in others)]
    if "competence" in plan:
        lines += ["", f"{'epoch':<7}{'step':>8}{'in reach':>9}{'blocks':>8}{'words seen':>13}  hardest text begins"]
        lines += [
            f"{row['epoch']:<7.2f}{row['step']:>8,}{100 * row['share']:>7.1f} %{row['blocks']:>8,}"
            f"{row['words_seen']:>13,.0f}  {_cut(row['text'])}"
            for row in plan["competence"]
        ]
    told = dict.fromkeys(("weights", "gradients", "optimizer", "average", "logits"), "by size")
    told |= {"activations": "by formula, on a GPU", "together": "on a GPU, beside its libraries"}
    lines += [
        "",
        f"{'peak memory':<16}{size(memory['peak'])} a process, measured on the steps below",
        *(f"{'  ' + name:<16}{size(memory[name])} {how}" for name, how in told.items() if name in memory),
        f"{'a step':<16}{plan['seconds_per_step']:.3g} s, measured on {plan['timed_steps']} after the first",
        f"{'evaluations':<16}{plan['evaluations']:,} of {duration(plan['seconds_per_evaluation'])}, measured on a part",
        *(
            [f"{'milestones':<16}{plan['milestones']} of {size(plan['milestone_bytes'])}, with an evaluation each"]
            if plan["milestones"]
            else []
        ),
        f"{'training':<16}{duration(plan['seconds'])} by these times, up to the final evaluation",
        "",
        "Dry run: nothing was trained, and nothing is left of it.",
    ]
    return "\n".join(lines)


def _cut(text: str) -> str:
    return text if len(text) <= 33 else text[:30] + "..."


def _likelihood_rows(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    test = results["test"]
    return [
        ("test bits per byte", figure(test["bits_per_byte"], 3)),
        *(
            (
                f"  {name} floor",
                f"{floor['value']:.3f}; the model is {100 * abs(share):.1f} % {'under' if share > 0 else 'OVER'} it",
            )
            for name, (floor, share) in floors(test)
        ),
        ("test word perplexity", figure(test["word_perplexity"], 1)),
        ("test token perplexity", figure(test["token_perplexity"], 1) + ", this tokenizer only"),
        *([("validation perplexity", f"{results['validation']['perplexity']:.2f}")] if "validation" in results else []),
    ]


def _pseudo_rows(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the rows of a masked model, which compare with no causal model's."""
    test = results["test"]
    return [
        ("test pseudo bits/byte", figure(test["pseudo_bits_per_byte"], 3)),
        *(
            [
                (
                    "  unigram bits per byte",
                    f"{test['unigram_bits_per_byte']['value']:.3f}; it is no floor of pseudo bits",
                )
            ]
            if "unigram_bits_per_byte" in test
            else []
        ),
        ("  scored", f"{test['scored_tokens']:,} of {test['tokens']:,} tokens, each masked in turn"),
        ("test pseudo word ppl.", figure(test["pseudo_word_perplexity"], 1)),
        ("test pseudo token ppl.", figure(test["pseudo_token_perplexity"], 1) + ", this tokenizer only"),
        *(
            [("validation pseudo ppl.", f"{results['validation']['pseudo_perplexity']:.2f}")]
            if "validation" in results
            else []
        ),
    ]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit(folder: Path) -> str | None:
    """Return the commit of the checkout that the package runs from, or None outside of one."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
