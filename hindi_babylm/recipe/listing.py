"""What `run --help` prints."""

import dataclasses
import textwrap
import typing
from typing import Any

from hindi_babylm.recipe.sections import SECTIONS

USAGE = """\
usage: accelerate launch -m hindi_babylm.run RECIPE [--key value ...]
                                                    [--overwrite]

Train a Hindi language model as the JSON file RECIPE says: corpus, tokenizer,
blocks, model, training, evaluation. Flags lie over the recipe, flat over its
sections: --learning_rate 1e-3 --corpus texts/ --output_dir runs/mine

  --corpus X ...        read these files, folders, globs or hub ids instead of
                        the recipe's sources
  --overwrite           start again in a folder that holds a run
  --help, --help training
                        this page; every training field of transformers"""


def run_help() -> str:
    """Describe our keys, section by section, without importing torch or transformers."""
    lines = [USAGE]
    for name, section in SECTIONS.items():
        lines += ["", f"{name}:" if name != "training" else "training (ours, and changed defaults of transformers'):"]
        lines += [_entry(f.name, _default(f), str(f.metadata["help"])) for f in dataclasses.fields(section)]
    return "\n".join(lines)


def training_help() -> str:
    """Describe every field of the training arguments; * marks a default that differs from transformers'."""
    from transformers import TrainingArguments

    from hindi_babylm.training.arguments import HindiTrainingArguments

    stock = {f.name: _default(f) for f in dataclasses.fields(TrainingArguments)}
    lines = ["Every key of section training; * marks a field of ours or a default that we change."]
    for f in dataclasses.fields(HindiTrainingArguments):
        if f.init and "help" in f.metadata:
            mark = "" if stock.get(f.name, object()) == _default(f) else "* "
            lines.append(
                _entry(f.name, _default(f), mark + " ".join(str(f.metadata["help"]).replace("%%", "%").split()))
            )
    return "\n".join(lines)


def _entry(name: str, default: Any, text: str) -> str:
    shown = "" if default is None else f" [{default}]"
    body = textwrap.wrap(text + shown, 54, break_on_hyphens=False) or [""]
    head = f"  {name:<22}  {body[0]}" if len(name) <= 22 else f"  {name}\n{'':26}{body[0]}"
    return "\n".join([head, *(f"{'':26}{line}" for line in body[1:])])


def _default(f: "dataclasses.Field[Any]") -> Any:
    if f.default is not dataclasses.MISSING:
        return getattr(f.default, "value", f.default)  # an enum is written as its value
    return typing.cast(Any, f.default_factory)() if f.default_factory is not dataclasses.MISSING else None
