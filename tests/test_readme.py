"""What the README tells people to type works as it is written."""

import gzip
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hindi_babylm import commands
from hindi_babylm.run import main
from tests.conftest import TINY_LLAMA, hindi_sentences, tiny_recipe
from tests.runs import ROOT, environment

BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)
COMMANDS = [command for language, text in BLOCKS if language == "bash" for command in re.split(r"&&|\n", text.strip())]
LAUNCHES = [shlex.split(command) for command in COMMANDS if "accelerate launch" in command]
PYTHON = [text for language, text in BLOCKS if language == "python"]
# Over the recipe of a command, so that it ends in seconds; all else is as the README says.
SHORTER: dict[str, Any] = {
    "max_steps": 2,
    "max_words": 20_000,
    "vocab_size": 1024,
    "block_size": 64,
    "model_config": TINY_LLAMA,
    "tasks": [],
}


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a working folder with what the README speaks of: the recipes, and some text of a user's own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    (tmp_path / "texts").mkdir()
    for number in range(30):
        (tmp_path / "texts" / f"{number}.txt").write_text(hindi_sentences(40, seed=number), encoding="utf-8")
    with gzip.open(tmp_path / "more.jsonl.gz", "wt", encoding="utf-8") as file:
        for number in range(30, 60):
            file.write(json.dumps({"text": hindi_sentences(20, seed=number)}, ensure_ascii=False) + "\n")
    return tmp_path


@pytest.mark.parametrize("words", LAUNCHES, ids=" ".join)
def test_commands_run_as_written(checkout: Path, words: list[str]) -> None:
    """Each command that trains ends well and writes what it promises, here with flags that make it short."""
    flags = [part for key, value in SHORTER.items() for part in (f"--{key}", json.dumps(value))]
    program = [sys.executable, "-m", "accelerate.commands.accelerate_cli", *words[1:], *flags]
    done = subprocess.run(program, capture_output=True, text=True, check=False, env=environment(), cwd=checkout)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = words[words.index("--output_dir") + 1] if "--output_dir" in words else "runs/quickstart"
    assert json.loads((checkout / folder / "results.json").read_text(encoding="utf-8"))["training"]["steps"] == 2


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("hindi-babylm")])
def test_further_commands_have_the_flags_that_they_are_shown_with(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each further command is there, and its --help knows every flag that the README gives it."""
    _, name, *words = shlex.split(command)
    commands.main([name, "--help"])
    told = capsys.readouterr().out
    assert f"usage: hindi-babylm {name}" in told
    assert all(re.search(rf"^  {word} ", told, re.M) for word in words if word.startswith("--"))


def test_the_other_commands_name_what_is_there() -> None:
    """What is installed and how it is tested agrees with the checkout and with CI."""
    others = [command.strip() for command in COMMANDS if not re.search("accelerate launch|^hindi-babylm", command)]
    assert others == ["pip install -c constraints.txt -e .", "pip install tox", "tox"]
    assert (ROOT / "constraints.txt").exists()
    assert (ROOT / "tox.ini").exists()
    assert (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()[-1] == "pip install tox && tox"


def test_the_pipeline_fits_a_notebook_cell() -> None:
    """From text to a saved model it takes 20 lines of code, imports aside."""
    (block,) = [text for text in PYTHON if "train_tokenizer" in text]
    imports = [line for line in block.splitlines() if line.startswith(("from ", "import "))]
    assert len([line for line in block.splitlines() if line]) - len(imports) <= 20


def test_python_blocks_run_as_written(checkout: Path, corpus_file: Path) -> None:
    """Each block of Python runs in a notebook of its own, in a folder with the runs that it reads."""
    assert len(PYTHON) == 3
    for name in ("quickstart", "base"):
        recipe = tiny_recipe(corpus_file, num_train_epochs=2)
        Path(f"{name}.json").write_text(json.dumps(recipe), encoding="utf-8")
        main([f"{name}.json"])
    for block in PYTHON:
        names: dict[str, Any] = {}
        exec(compile(block, "README.md", "exec"), names)
        if "checkpoint" in names:
            saved = names["checkpoint"]["optimizer_state_dict"]["param_groups"]
            assert [group["lr"] for group in names["optimizer"].param_groups] == [group["lr"] for group in saved]
            assert names["scheduler"].last_epoch == names["checkpoint"]["step"]
            assert names["start_epoch"] == 1
    assert (checkout / "runs" / "example" / "final_model" / "model.safetensors").exists()
