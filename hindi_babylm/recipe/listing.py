"""What `run --help` prints."""

import dataclasses
import json
import textwrap
from typing import Any

from hindi_babylm.recipe.refused import REFUSED
from hindi_babylm.recipe.sections import SECTIONS, default_of

USAGE = """\
usage: accelerate launch -m hindi_babylm.run RECIPE [--key value ...]
                                               [--dry_run | --overwrite]

Train a Hindi language model as the JSON file RECIPE says. Flags lie over it,
flat over its sections: --learning_rate 1e-3 --tasks A B --model_config '{...}'

  --corpus X ...              files, folders, globs or hub ids, for sources
  --dry_run                   print the plan and time a few steps, train nothing
  --overwrite                 start again in a folder that holds a run
  --help, --help training     this page; every training key of transformers"""


def run_help() -> str:
    """Describe our keys, section by section, without importing torch or transformers."""
    lines = [USAGE]
    for name, section in SECTIONS.items():
        lines += ["", f"{name}:" if name != "training" else "training (ours, and changed defaults of transformers'):"]
        lines += [_entry(f.name, default_of(f), str(f.metadata["help"])) for f in dataclasses.fields(section)]
    return "\n".join(lines)


def training_help() -> str:
    """Describe every field of the training arguments; * marks a default that differs from transformers'."""
    from transformers import TrainingArguments

    from hindi_babylm.training.arguments import HindiTrainingArguments

    stock = {f.name: default_of(f) for f in dataclasses.fields(TrainingArguments)}
    lines = [
        "Every key of section training. * marks a key of ours or a default that we",
        "change, - a key that is refused at any value but its default, and why.",
    ]
    for f in dataclasses.fields(HindiTrainingArguments):
        if f.init and "help" in f.metadata:
            ours = f.name not in stock or stock[f.name] != default_of(f)
            text = "- " + REFUSED[f.name] if f.name in REFUSED else ("* " if ours else "") + str(f.metadata["help"])
            lines.append(_entry(f.name, default_of(f), " ".join(text.replace("%%", "%").split())))
    return "\n".join(lines)


def _entry(name: str, default: Any, text: str) -> str:
    shown = "" if default in (None, "", [], {}) else f" {_written(default)}"
    body = textwrap.wrap(text + shown, 50, break_on_hyphens=False)
    head = f"  {name:<28}{body[0]}" if len(name) < 28 else f"  {name}\n{'':30}{body[0]}"
    return "\n".join([head, *(f"{'':30}{line}" for line in body[1:])])


def _written(default: Any) -> str:
    """Return a default in brackets, as a recipe writes it; a list has its own."""
    if isinstance(default, list):
        return json.dumps(default)
    return (
        f"[{default:g}]"
        if isinstance(default, float)
        else f"[{default if isinstance(default, str) else json.dumps(default)}]"
    )
