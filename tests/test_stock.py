import ast
import dataclasses

import pytest
from accelerate.utils import DynamoBackend
from transformers import DebertaV2Config, GPT2Config, LlamaConfig, PreTrainedConfig
from transformers.activations import ACT2FN
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from hindi_babylm.modeling import ARCHITECTURES, CONFIG_CLASSES
from hindi_babylm.recipe import stock
from hindi_babylm.recipe.checking import accepted_types, item_type
from hindi_babylm.recipe.sections import TRAINING_CHECKS
from hindi_babylm.recipe.stock import (
    compile_backends,
    config_fields,
    imported_training_fields,
    tracker_names,
    training_fields,
)

CLASSES: dict[str, type[PreTrainedConfig]] = {
    "gpt2": GPT2Config,
    "llama": LlamaConfig,
    "deberta-v2": DebertaV2Config,
}


def test_the_source_of_the_training_arguments_says_what_the_class_does() -> None:
    """Names, order, types, defaults and choices that are read from the source are those of the imported class."""
    read, imported = training_fields(), imported_training_fields()
    assert list(read) == list(imported)
    for name, entry in imported.items():
        assert accepted_types(read[name].hint) == accepted_types(entry.hint), name
        assert item_type(read[name].hint) == item_type(entry.hint), name
        assert read[name].default == entry.default, name
        if name not in TRAINING_CHECKS:  # else ours count
            assert read[name].choices == entry.choices, name


@pytest.mark.parametrize("error", [OSError("no source"), LookupError("no class"), ValueError("no literal")])
def test_a_source_that_cannot_be_read_is_imported(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the source is missing or written otherwise, the training arguments are imported, and configs left alone."""

    def fail(module: str) -> None:
        raise error

    monkeypatch.setattr(stock, "_tree", fail)
    assert training_fields() == imported_training_fields()
    assert config_fields("gpt2", "GPT2Config") is None


@pytest.mark.parametrize(
    "source",
    [
        "class TrainingArguments(Mixin):\n    x: int = 1",
        "class TrainingArguments:\n    x: torch.device | None = None",
        "class TrainingArguments:\n    x: Foo[int] = 1",
        "class TrainingArguments:\n    x: int = field(default=compute())",
        "class TrainingArguments:\n    x: int = field(default_factory=make)",
    ],
)
def test_a_source_of_another_shape_is_imported(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the reader of the source does not understand, a base class too, is left to the import."""
    monkeypatch.setattr(stock, "_tree", lambda module: ast.parse(source))
    assert training_fields() == imported_training_fields()
    assert config_fields("gpt2", "GPT2Config") is None


def test_the_source_names_the_trackers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trackers that are read from the source are those of the library; another source is no help."""
    assert tracker_names() == tuple(INTEGRATION_TO_CALLBACK)
    monkeypatch.setattr(stock, "_tree", lambda module: ast.parse("x = 1"))
    assert tracker_names() is None


def test_the_source_names_the_backends_of_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    """The list is accelerate's own; without its source there is none."""
    assert compile_backends() == tuple(entry.lower() for entry in DynamoBackend.__members__)
    monkeypatch.setattr(stock, "_tree", lambda module: ast.parse("x = 1"))
    assert compile_backends() is None


def test_quoted_types_and_class_variables() -> None:
    """A type in quotes is the type, a ClassVar is no field, and a method's own names are no constants."""
    source = """
class Fields:
    SIZE = 3
    kept: ClassVar[int] = 1
    x: "int | None" = SIZE
    def method(self):
        SIZE = 5
"""
    (cls,) = ast.parse(source).body
    assert isinstance(cls, ast.ClassDef)
    fields = dict(stock._fields(cls))
    assert list(fields) == ["x"]
    assert fields["x"].default == 3
    assert accepted_types(fields["x"].hint) == {int, type(None)}


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_the_source_of_a_config_says_what_the_class_does(architecture: str) -> None:
    """Names, second names, types and activations that are read from the source are those of the imported class."""
    found = config_fields(architecture, CONFIG_CLASSES[architecture])
    assert found is not None
    fields, second_names = found
    cls = CLASSES[architecture]
    assert cls.__name__ == CONFIG_CLASSES[architecture]
    made = ARCHITECTURES[architecture](block_size=32, dropout=0.0)
    assert set(fields) == {*cls().to_dict(), *made.to_dict(), *(f.name for f in dataclasses.fields(cls))}
    assert second_names == cls.attribute_map
    declared = {f.name: f.type for f in dataclasses.fields(cls)}
    for name in cls.__annotations__:
        assert accepted_types(fields[name].hint) == accepted_types(declared[name]), name
        if name in stock.ACTIVATIONS:
            assert set(fields[name].choices) == set(ACT2FN)
