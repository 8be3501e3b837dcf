"""What the libraries' classes declare, read from their source: importing them takes seconds."""

import ast
import builtins
import dataclasses
import importlib.util
import typing
from collections.abc import Iterator, Sequence
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True)
class StockField:
    """A field of a dataclass: its type, in which what is neither built in nor of `typing` is text, and its default."""

    hint: Any
    default: Any
    choices: tuple[str, ...] = ()


def training_fields() -> dict[str, StockField]:
    """Return the fields of `TrainingArguments`; where its source cannot be read as expected, by importing it."""
    try:
        fields = dict(_fields(_class("transformers.training_args", "TrainingArguments", "")))
        enums = {key: _members(_class(module, name)) for key, (module, name) in ENUMS.items()}
    except Exception:  # a source of another shape raises anything: the import then tells what it cannot
        return imported_training_fields()
    return {
        name: dataclasses.replace(entry, choices=enums[name]) if name in enums else entry
        for name, entry in fields.items()
    }


def imported_training_fields() -> dict[str, StockField]:
    """Return the fields of `TrainingArguments` as the class has them."""
    from transformers import TrainingArguments

    hints = typing.get_type_hints(TrainingArguments)
    fields = {}
    for f in dataclasses.fields(TrainingArguments):
        parts = [part for part in typing.get_args(hints[f.name]) if isinstance(part, type) and issubclass(part, Enum)]
        choices = tuple(member.value for member in parts[0]) if parts else tuple(f.metadata.get("choices") or ())
        default = f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
        fields[f.name] = StockField(hints[f.name], getattr(default, "value", default), choices)
    return fields


def config_fields(architecture: str, name: str) -> tuple[dict[str, StockField], dict[str, str]] | None:
    """Return the fields of the config class `name` and its second names for them; None where the source is no help.

    Fields that every config class has are there without their types.
    """
    try:
        module = architecture.replace("-", "_")
        own = _class(f"transformers.models.{module}.configuration_{module}", name, "PreTrainedConfig")
        stock = _class("transformers.configuration_utils", "PreTrainedConfig")
        inherited = [node.target.id for node in _annotated(stock) if "ClassVar" not in ast.unparse(node.annotation)]
        fields = {**dict.fromkeys([*inherited, *UNDECLARED], StockField(Any, None)), **dict(_fields(own))}
        fields |= {field: StockField(hint, None) for field, hint in UNDECLARED_BY_CLASS.get(name, {}).items()}
        for field in fields.keys() & ACTIVATIONS:
            fields[field] = dataclasses.replace(fields[field], choices=_keys("transformers.activations", "ACT2CLS"))
        return fields, dict(_assigned(own).get("attribute_map", {}))
    except Exception:  # a source of another shape raises anything: the model is then tried instead
        return None


def tracker_names() -> tuple[str, ...] | None:
    """Return the trackers of transformers; None where the source is no help."""
    try:
        return _keys("transformers.integrations.integration_utils", "INTEGRATION_TO_CALLBACK")
    except Exception:  # a source of another shape raises anything: the import then tells
        return None


def compile_backends() -> tuple[str, ...] | None:
    """Return the backends of `torch.compile` that accelerate knows; None where the source is no help."""
    try:
        return tuple(name.lower() for name in _members(_class("accelerate.utils.dataclasses", "DynamoBackend")))
    except Exception:  # a source of another shape raises anything: accelerate tells, though later
        return None


@cache
def _tree(module: str) -> ast.Module:
    package, *inside = module.split(".")
    spec = importlib.util.find_spec(package)  # of the package alone: that of a module would import the package
    if spec is None or spec.origin is None:
        raise LookupError(package)
    return ast.parse(Path(spec.origin).parent.joinpath(*inside).with_suffix(".py").read_text(encoding="utf-8"))


def _class(module: str, name: str, *bases: str) -> ast.ClassDef:
    """Return a class of a module; raise LookupError when it is not there or inherits from others than `bases`."""
    for node in _tree(module).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            if bases and [ast.unparse(base) for base in node.bases] != [base for base in bases if base]:
                break
            return node
    raise LookupError(f"{module}.{name}")


def _annotated(cls: ast.ClassDef) -> Iterator[Any]:
    yield from (node for node in cls.body if isinstance(node, ast.AnnAssign))


def _fields(cls: ast.ClassDef) -> Iterator[tuple[str, StockField]]:
    """Yield the fields of a dataclass by name; raise ValueError for one that the source alone does not explain."""
    constants = _assigned(cls)
    for node in _annotated(cls):
        if "ClassVar" in ast.unparse(node.annotation):
            continue
        options = {word.arg: word.value for word in node.value.keywords} if isinstance(node.value, ast.Call) else {}
        metadata = options.get("metadata")
        choices: list[str] = []
        if isinstance(metadata, ast.Dict):
            entries = zip(metadata.keys, metadata.values, strict=True)
            lists = [value for key, value in entries if key and ast.unparse(key) == "'choices'"]
            choices = ast.literal_eval(lists[0]) if lists and isinstance(lists[0], ast.List) else []
        if "default_factory" in options:
            default: Any = {"list": list, "dict": dict}[ast.unparse(options["default_factory"])]()
        else:
            written = options.get("default", node.value)
            default = constants[written.id] if isinstance(written, ast.Name) else ast.literal_eval(written)
        quoted = isinstance(node.annotation, ast.Constant) and isinstance(node.annotation.value, str)
        written = node.annotation.value if quoted else ast.unparse(node.annotation)
        hint = eval(written, {"__builtins__": {}}, _Names())
        yield node.target.id, StockField(hint, default, tuple(choices))


def _assigned(cls: ast.ClassDef) -> dict[str, Any]:
    """Return what the body of a class assigns to plain names, the last literal that stands there."""
    found = {}
    for node in _statements(cls.body):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                found[node.targets[0].id] = ast.literal_eval(node.value)
            except ValueError:
                continue  # no literal: whoever asks for it gets a LookupError
    return found


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements of a body and of the conditions in it, in their order."""
    for node in body:
        yield node
        if isinstance(node, ast.If):
            yield from _statements([*node.body, *node.orelse])


def _members(enum: ast.ClassDef) -> tuple[str, ...]:
    values = tuple(value for value in _assigned(enum).values() if isinstance(value, str))
    if not values:
        raise LookupError(enum.name)
    return values


def _keys(module: str, name: str) -> tuple[str, ...]:
    """Return the keys of a dict literal of a module."""
    for node in _tree(module).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict) and ast.unparse(node.targets[0]) == name:
            return tuple(ast.literal_eval(key) for key in node.value.keys if key)
    raise LookupError(f"{module}.{name}")


class _Names(dict[str, Any]):
    """Names in a type hint: those of Python and `typing`, and text for any other, such as an enum."""

    def __missing__(self, name: str) -> Any:
        return getattr(builtins, name, None) or getattr(typing, name, str)


# What a config class takes though no field declares it.
UNDECLARED = ("_name_or_path", "model_type", "output_attentions")
UNDECLARED_BY_CLASS: dict[str, dict[str, type]] = {
    "DebertaV2Config": {
        **{"pooler_hidden_size": int, "position_buckets": int, "norm_rel_ebd": str, "share_att_key": bool},
        **{"conv_kernel_size": int, "conv_groups": int, "conv_act": str},
    },
}

# Fields that hold the name of an activation function.
ACTIVATIONS = {"activation_function", "hidden_act", "conv_act"}

# Fields whose values are those of an enum: module and class.
ENUMS = {
    "hub_strategy": ("transformers.trainer_utils", "HubStrategy"),
    "lr_scheduler_type": ("transformers.trainer_utils", "SchedulerType"),
    "optim": ("transformers.training_args", "OptimizerNames"),
}
