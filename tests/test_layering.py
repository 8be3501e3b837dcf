import ast
import io
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

import hindi_babylm

PACKAGE = Path(hindi_babylm.__file__).parent
ANY_BUT_COMMANDS = {
    *("orthography", "storage", "console", "corpus", "tokenization", "packing", "curriculum", "modeling", "metrics"),
    *("training", "evaluation", "reporting", "recipe", "preparation", "run", "signals", "masking"),
    *("comparison", "lock"),
}
# What everything may import.
BOTTOM = {"orthography", "storage", "console", "signals"}
# Module or package -> what it may import from the package, itself left out.
ALLOWED: dict[str, set[str]] = {
    "orthography": set(),
    "storage": set(),
    "lock": {"storage"},
    "console": set(),
    "signals": set(),
    "corpus": {*BOTTOM},
    "tokenization": {*BOTTOM},
    "packing": {*BOTTOM},
    "curriculum": {*BOTTOM},
    "modeling": {*BOTTOM},
    "metrics": {*BOTTOM},
    "reporting": {*BOTTOM},
    "masking": {*BOTTOM},
    "comparison": {*BOTTOM, "metrics"},
    "training": {*BOTTOM, "metrics", "masking"},
    "evaluation": {*BOTTOM, "metrics", "masking"},
    "recipe": {
        *BOTTOM,
        *("training.specification", "training.arguments", "training.trackers"),
        *("evaluation", "modeling", "tokenization", "corpus", "curriculum"),  # their registries, for choices
    },
    "preparation": ANY_BUT_COMMANDS - {"preparation", "run"},
    "run": ANY_BUT_COMMANDS - {"run"},
    "commands": ANY_BUT_COMMANDS,
    "__main__": {"commands", "signals"},
    "__init__": set(),
}
FORBIDDEN_NAMES = ("util", "common", "base", "helper", "manager", "factory", "misc")
TRAINER_LINES = 150
# What the trainer takes over from the stock one; a new name here is a decision, not an accident.
OVERRIDDEN = {
    "__init__",
    "_determine_best_metric",
    "_get_dataloader",
    "_get_train_sampler",
    "_load_best_model",
    "_maybe_log_save_evaluate",
    "_save_checkpoint",
    "create_scheduler",
    "evaluate",
    "log",
    "prediction_step",
    "train",
}


def modules() -> dict[str, ast.Module]:
    """Return the syntax tree of every module of the package by its dotted name within the package."""
    trees = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts if len(parts) == 1 or parts[-1] != "__init__" else parts[:-1])
        trees[name] = ast.parse(path.read_text(encoding="utf-8"))
    return trees


def is_type_checking(node: ast.AST) -> bool:
    """Say whether a node is an `if TYPE_CHECKING:` without an else."""
    if not isinstance(node, ast.If) or node.orelse:
        return False
    return (isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING") or (
        isinstance(node.test, ast.Attribute) and node.test.attr == "TYPE_CHECKING"
    )


def runtime_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield every node that runs, those under TYPE_CHECKING left out."""
    for child in ast.iter_child_nodes(tree):
        if not is_type_checking(child):
            yield child
            yield from runtime_nodes(child)


def package_imports(module: str, tree: ast.Module) -> set[str]:
    """Return the modules of the package that `module` imports at run time, as dotted names within the package."""
    known = set(modules_by_name)
    found: set[str] = set()
    for node in runtime_nodes(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute"
            assert node.module is not None
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif (  # importlib.import_module("hindi_babylm.x")
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "import_module"
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            names = [str(node.args[0].value)]
        for name in names:
            if name.split(".")[0] != PACKAGE.name:
                continue
            inside = name.split(".")[1:]
            # The last part may be a name in a module: cut until a module is left.
            while inside and ".".join(inside) not in known:
                inside.pop()
            if inside:
                found.add(".".join(inside))
    return found


modules_by_name = modules()


def test_every_module_stands_in_the_table() -> None:
    """Each module belongs to a row of the table, and no row is left over."""
    assert {name.split(".")[0] for name in modules_by_name} == set(ALLOWED)


@pytest.mark.parametrize("module", sorted(modules_by_name))
def test_imports_keep_to_the_table(module: str) -> None:
    """A module imports no more of the package than its row allows; imports for type checking do not count."""
    top = module.split(".")[0]
    for imported in package_imports(module, modules_by_name[module]):
        allowed = ALLOWED[top] | {top}
        prefixes = {imported, imported.split(".")[0]}
        assert prefixes & allowed, f"{module} imports {imported}"


def test_only_main_imports_the_commands() -> None:
    """Nobody but `__main__` imports the commands, and only the commands import `run`."""
    for module, tree in modules_by_name.items():
        imported = {name.split(".")[0] for name in package_imports(module, tree)}
        if module != "__main__" and module.split(".")[0] != "commands":
            assert "commands" not in imported, module
            assert "run" not in imported, module


def test_the_walk_finds_what_it_should() -> None:
    """The search for imports sees those inside functions and passes over those for type checking."""
    tree = ast.parse(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from hindi_babylm.corpus.ledger import Ledger\n"
        "def f():\n    from hindi_babylm.packing import pack\n    import hindi_babylm.storage\n"
        "    importlib.import_module('hindi_babylm.run')\n"
    )
    assert package_imports("x", tree) == {"packing", "storage", "run"}


def test_no_module_is_named_after_nothing() -> None:
    """No module is called utils, common, base, helpers, manager, factory or the like."""
    for name in modules_by_name:
        for part in name.split("."):
            for word in part.split("_"):
                assert not word.startswith(FORBIDDEN_NAMES), name


@pytest.mark.parametrize("package", ["corpus", "recipe", "tokenization", "training", "evaluation", "comparison"])
def test_packages_are_empty_inside(package: str) -> None:
    """The `__init__` of a stage is empty, so that one of its modules can be imported without the others."""
    assert modules_by_name[package].body == []


@pytest.mark.parametrize(
    "module",
    [
        *("orthography", "storage", "corpus.ledger", "corpus.sources", "corpus.reading", "modeling"),
        *("corpus.duplicates", "corpus.contamination", "corpus.hygiene.cleaning", "corpus.decoding"),
        *("metrics", "training.specification", "tokenization.algorithms", "tokenization.training"),
        *("tokenization.splitting", "tokenization.vocabulary", "tokenization.report", "tokenization.comparison"),
    ],
)
def test_heavy_libraries_are_imported_late(module: str) -> None:
    """Modules that a recipe's help or choices need import no heavy library at their top."""
    heavy = {"torch", "transformers", "datasets", "evaluate", "accelerate", "tokenizers", "wandb", "numpy"}
    for node in modules_by_name[module].body:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not {name.split(".")[0] for name in names} & heavy


def trainer_class() -> ast.ClassDef:
    """Return the syntax tree of the trainer's class."""
    return next(
        node
        for node in modules_by_name["training.trainer"].body
        if isinstance(node, ast.ClassDef) and node.name == "HindiLanguageModelTrainer"
    )


def code_lines(node: ast.ClassDef, source: str) -> int:
    """Count the lines of a class that hold code: no blank lines, comments or docstrings."""
    assert node.end_lineno is not None
    inside = range(node.lineno, node.end_lineno + 1)
    docstrings: set[int] = set()
    for part in ast.walk(node):
        body = getattr(part, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            value = body[0].value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                docstrings |= set(range(body[0].lineno, (body[0].end_lineno or body[0].lineno) + 1))
    silent = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in silent:
            lines |= set(range(token.start[0], token.end[0] + 1))
    return len([line for line in inside if line in lines and line not in docstrings])


def test_code_lines_are_counted_as_they_should() -> None:
    """Blank lines, comments and docstrings are no code; every line of a statement is."""
    source = 'class A:\n    """Doc\n\n    more."""\n\n    # note\n    x = (\n        1  # one\n    )\n'
    (node,) = ast.parse(source).body
    assert isinstance(node, ast.ClassDef)
    assert code_lines(node, source) == 4


def test_the_trainer_stays_thin() -> None:
    """The trainer's class has at most 150 lines of code."""
    source = (PACKAGE / "training" / "trainer.py").read_text(encoding="utf-8")
    assert 0 < code_lines(trainer_class(), source) <= TRAINER_LINES


def test_the_overridden_names_are_pinned() -> None:
    """The trainer overrides these names of the stock one and no other."""
    from transformers import Trainer

    own = {node.name for node in trainer_class().body if isinstance(node, ast.FunctionDef)}
    assert {name for name in own if hasattr(Trainer, name)} == OVERRIDDEN
