"""The tables of optimizers say what transformers imports and reads, and what cannot run is told at once."""

import ast
import inspect
import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import trainer_optimizer
from transformers.training_args import OptimizerNames

from hindi_babylm.recipe.optimizers import INSTALLED_AS, OPTIMIZER_ARGUMENTS, OPTIMIZER_PACKAGES
from hindi_babylm.recipe.parsing import parse_recipe
from hindi_babylm.storage import UserError

OPTIMIZERS = [entry.value for entry in OptimizerNames]
WITH_PACKAGE = [name for name in OPTIMIZERS if any(part in name for part in OPTIMIZER_PACKAGES)]
# What is there wherever transformers is.
THERE = {"torch", "accelerate", "importlib", "packaging"}


def handler(optimizer: str) -> ast.FunctionDef:
    """Return the function of the library that makes an optimizer."""
    source = inspect.getsource(trainer_optimizer._OPTIMIZER_HANDLERS[OptimizerNames(optimizer)])
    (function,) = ast.parse(textwrap.dedent(source)).body
    assert isinstance(function, ast.FunctionDef)
    return function


def package(optimizer: str) -> str | None:
    """Return the package of the table."""
    return next((name for part, name in OPTIMIZER_PACKAGES.items() if part in optimizer), None)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_package_is_the_one_that_the_library_imports(optimizer: str) -> None:
    """What the library's function for an optimizer imports, besides what is always there, is the table's package."""
    imported = {
        (node.module or "").split(".")[0]
        for node in ast.walk(handler(optimizer))
        if isinstance(node, ast.ImportFrom) and not node.level
    }
    wanted = package(optimizer)
    assert imported - THERE == ({wanted} if wanted else set())


@pytest.mark.parametrize("name", sorted(INSTALLED_AS))
def test_a_package_of_another_name_is_the_one_that_the_library_names(name: str) -> None:
    """Where the installed name differs from the imported one, the library's own error has it."""
    told = [ast.unparse(handler(optimizer)) for optimizer in OPTIMIZERS if package(optimizer) == name]
    assert told
    assert all(INSTALLED_AS[name] in text for text in told)


def read_arguments(optimizer: str) -> Iterator[str]:
    """Yield the keys of `optim_args` that the library's function reads."""
    for node in ast.walk(handler(optimizer)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("ctx.optim_args.get", "ctx.optim_args.pop"):
            yield ast.literal_eval(node.args[0])
        if isinstance(node, ast.Compare) and isinstance(node.left, ast.Constant):
            yield from [str(node.left.value)] * (ast.unparse(node.comparators[0]) == "ctx.optim_args")
        if isinstance(node, ast.For) and "ctx.optim_args[key]" in ast.unparse(node):
            yield from ast.literal_eval(node.iter)


# All optimizers of bitsandbytes have one function, of which only AdEMAMix's part reads names.
READING = [name for name in OPTIMIZERS if OPTIMIZER_PACKAGES.get("bnb") != package(name) or "ademamix" in name]


@pytest.mark.parametrize("optimizer", READING)
def test_the_arguments_are_those_that_the_library_reads(optimizer: str) -> None:
    """The keys of `optim_args` in the table are those of the library's function for the optimizer."""
    known = next((names for part, names in OPTIMIZER_ARGUMENTS.items() if part in optimizer), {})
    assert set(read_arguments(optimizer)) == set(known)


def refusal(tmp_path: Path, **training: Any) -> str:
    """Return the one line that a recipe is refused with."""
    path = tmp_path / "r.json"
    path.write_text(json.dumps({"training": training}), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        parse_recipe(path)
    return str(caught.value)


@pytest.mark.parametrize("optimizer", WITH_PACKAGE)
def test_a_package_that_is_missing_is_told(tmp_path: Path, optimizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each optimizer of a package that is not there is refused by its recipe, with the package's name."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    wanted = INSTALLED_AS.get(str(package(optimizer)), package(optimizer))
    assert f"needs the package {wanted}, which is not installed" in refusal(tmp_path, optim=optimizer)


@pytest.mark.parametrize(
    ("training", "told"),
    [
        (
            {"optim": "galore_adamw"},
            'training.optim = "galore_adamw" needs optim_target_modules: set it to "all-linear"',
        ),
        (
            {"optim": "apollo_adamw_layerwise", "optim_target_modules": "all-linear", "per_device_train_batch_size": 8},
            'training.optim = "apollo_adamw_layerwise" steps as soon as a layer has its gradient, which contradicts '
            "gradients accumulated over 4 passes: take apollo_adamw",
        ),
    ],
)
def test_what_a_low_rank_optimizer_needs_is_told(
    tmp_path: Path, training: dict[str, Any], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its package there, an optimizer by projections says what else it needs before any data are read."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert told in refusal(tmp_path, **training)
    parse_recipe(tmp_path / "r.json", ["--optim", "adamw_torch"])
