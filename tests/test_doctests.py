"""The examples in docstrings run and print what they say; every public name has one."""

import doctest
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import hindi_babylm
from hindi_babylm import console
from tests.runs import ROOT

MODULES = sorted(module.name for module in pkgutil.walk_packages(hindi_babylm.__path__, "hindi_babylm."))
ROWS = re.findall(
    r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \| [^|]+ \|$", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.M
)
PUBLIC = [(stage, name) for stage, names in ROWS for name in re.findall(r"`(\w+)`", names)]
# Its examples are run by test_readme.py.
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let an example print its results alone, and write into an empty folder."""
    monkeypatch.setattr(console, "_level", console.LEVELS["critical"])
    monkeypatch.chdir(tmp_path)
    importlib.import_module("transformers.integrations.integration_utils")  # prints a line where W&B is offline


def examples_of(module: str) -> Iterator[doctest.DocTest]:
    """Yield the docstrings of a module that hold examples."""
    for found in doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(module)):
        if found.examples:
            yield found


@pytest.mark.parametrize("module", MODULES)
def test_examples_print_what_they_say(module: str) -> None:
    """Each docstring's example runs in an empty folder and prints exactly what stands there."""
    runner = doctest.DocTestRunner(verbose=False)
    report: list[str] = []
    for example in examples_of(module):
        runner.run(example, out=report.append)
    assert not report, "".join(report)


def defined(stage: str, name: str) -> Any:
    """Return the function or class that a stage's module, or a module of its package, defines under a name."""
    for module in MODULES:
        if module.split(".")[1] == stage:
            found = getattr(importlib.import_module(module), name, None)
            if found is not None and found.__module__ == module:
                return found
    raise AssertionError(f"CONTRIBUTING.md names {stage}.{name}, which is not there")


@pytest.mark.parametrize(("stage", "name"), PUBLIC, ids=[f"{stage}.{name}" for stage, name in PUBLIC])
def test_public_names_have_an_example(stage: str, name: str) -> None:
    """What CONTRIBUTING.md calls public has an example in its docstring, or names the README's section with one."""
    found = defined(stage, name)
    docstrings = [inspect.getdoc(found) or ""]
    if inspect.isclass(found):
        docstrings += [part.__doc__ or "" for part in vars(found).values() if inspect.isroutine(part)]
    sections = re.findall(r'README\.md,\s+"([^"]+)"', docstrings[0])
    assert any(">>>" in text for text in docstrings) or sections, f"{stage}.{name}"
    assert all(f"\n## {section}\n" in README for section in sections)


def test_the_table_of_public_names_is_read() -> None:
    """The floor plan's rows are found, with the stages of the pipeline among them."""
    assert {"corpus", "tokenization", "packing", "curriculum", "modeling", "training", "evaluation"} <= set(dict(ROWS))
    assert ("packing", "pack") in PUBLIC
    assert ("training", "load_checkpoint") in PUBLIC
