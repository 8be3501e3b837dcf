"""What `run --help` prints."""

import dataclasses
import json
import textwrap
from collections.abc import Sequence
from typing import Any

from hindi_babylm.recipe.checking import BOUNDS
from hindi_babylm.recipe.refused import REFUSED
from hindi_babylm.recipe.sections import SECTIONS, default_of
from hindi_babylm.storage import UserError, suggestion

USAGE = """\
usage: accelerate launch -m hindi_babylm.run RECIPE [--key value ...]
                                               [--dry_run | --overwrite]

Train a Hindi language model as the JSON file RECIPE says. Flags lie over it,
flat over its sections: --learning_rate 1e-3 --tasks A B --model_config '{...}'

  --corpus X ...    files, folders, globs or hub ids, in place of sources
  --dry_run         print the plan and time a few steps, train nothing
  --overwrite       start again in a folder that holds a run
  --help SECTION    what the keys of a section mean; training has many more

Keys of the sections, as key = default (unit):"""
STOP = 8  # columns between the places where an entry may begin


def help_page(words: Sequence[str]) -> str:
    """Return what a command line with --help asks for: the page of the section that follows it, or else of the run.

    Raises UserError for a section that is none.
    """
    asked = words[words.index("--help" if "--help" in words else "-h") + 1 :][:1]
    if not asked or asked[0].startswith("-"):
        return run_help()
    if asked[0] not in SECTIONS:
        raise UserError(f"--help {asked[0]}: no such section; {suggestion(asked[0], SECTIONS)}")
    return section_help(asked[0])


def run_help() -> str:
    """List our keys with default and unit, section by section, without importing torch or transformers."""
    lines = [USAGE]
    for name, section in SECTIONS.items():
        lines.append(f"{name}: {_title(name, section)}")
        lines += _in_columns([_short(f) for f in dataclasses.fields(section)])
    return "\n".join(lines)


def section_help(name: str) -> str:
    """Describe every key of a section; `training` takes the import of transformers."""
    if name == "training":
        return training_help()
    lines = [f"Section {name}: {_title(name, SECTIONS[name])}.", "Defaults stand in brackets.", ""]
    for f in dataclasses.fields(SECTIONS[name]):
        limits = " and ".join(f"{BOUNDS[check][0]} {f.metadata[check]}" for check in BOUNDS if check in f.metadata)
        takes = ", ".join(part for part in (f.metadata.get("unit"), limits) if part)
        help = str(f.metadata["help"])
        lines.append(_entry(f.name, default_of(f), f"{help} {takes[:1].upper() + takes[1:]}." if takes else help))
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


def _title(name: str, section: type) -> str:
    if name == "training":
        return "ours, and transformers' with another default"
    title = (section.__doc__ or "").rstrip(".")
    return title[:1].lower() + title[1:]


def _short(f: "dataclasses.Field[Any]") -> str:
    default = default_of(f)
    shown = f"{default:g}" if isinstance(default, float) else json.dumps(default)
    if isinstance(default, list) and len(shown) > 60:
        shown = f"[{json.dumps(default[0])}, ..., {json.dumps(default[-1])}]"
    return f"{f.name} = {shown}{' (' + f.metadata['unit'] + ')' if 'unit' in f.metadata else ''}"


def _in_columns(entries: Sequence[str]) -> list[str]:
    """Fill lines of 80 columns with the entries in their order, a short one into the first line that has room."""
    lines: list[str] = []
    for entry in entries:
        for number, line in enumerate(lines):
            start = -(-(len(line) + 1) // STOP) * STOP + 2
            if start + len(entry) <= 80:
                lines[number] = f"{line:<{start}}{entry}"
                break
        else:
            lines.append(f"  {entry}")
    return lines


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
