import contextlib
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from hindi_babylm.commands import COMMANDS, main


def test_without_a_command_the_usage_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """No command, -h and --help print the usage with every command and its line of help."""
    for argv in ([], ["-h"], ["--help"]):
        main(argv)
        captured = capsys.readouterr()
        assert captured.out.startswith("usage: hindi-babylm COMMAND")
        for name, (_, text) in COMMANDS.items():
            assert any(line.split() == [name, *text.split()] for line in captured.out.splitlines())
        assert captured.err == ""


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("runn", "error: unknown command 'runn'; did you mean 'run'?\n"),
        ("qqqqqqqq", f"error: unknown command 'qqqqqqqq'; there are {', '.join(COMMANDS)}\n"),
    ],
)
def test_an_unknown_command_is_refused(command: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown command ends with exit code 2 and one line that names the nearest one, or all."""
    with pytest.raises(SystemExit) as stopped:
        main([command, "x"])
    captured = capsys.readouterr()
    assert stopped.value.code == 2
    assert captured.err == message
    assert captured.out == ""


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_a_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each command of the registry is a module with a `main`, whose --help says how it is used."""
    module, text = COMMANDS[command]
    assert text
    assert callable(importlib.import_module(module).main)
    with contextlib.suppress(SystemExit):  # argparse exits after its help
        main([command, "--help"])
    captured = capsys.readouterr()
    assert captured.out.lower().startswith("usage:")
    assert captured.err == ""


def test_a_command_gets_the_words_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command is called with the words after its name, those of `sys.argv` where none are given."""
    import hindi_babylm.run

    calls: list[list[str]] = []
    monkeypatch.setattr(hindi_babylm.run, "main", calls.append)
    main(["run", "r.json", "--seed", "1"])
    monkeypatch.setattr(sys, "argv", ["hindi-babylm", "run", "s.json"])
    main()
    assert calls == [["r.json", "--seed", "1"], ["s.json"]]


def test_python_m_is_the_command(tmp_path: Path) -> None:
    """`python -m hindi_babylm` prints the usage, and refuses an unknown command with exit code 2."""
    root = str(Path(importlib.import_module("hindi_babylm").__file__ or "").parents[1])

    def run(*words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "hindi_babylm", *words], cwd=root, capture_output=True, text=True, check=False
        )

    usage = run()
    assert usage.returncode == 0
    assert usage.stdout.startswith("usage: hindi-babylm COMMAND")
    unknown = run("rnu")
    assert unknown.returncode == 2
    assert unknown.stdout == ""
    assert unknown.stderr == "error: unknown command 'rnu'; did you mean 'run'?\n"
    bare = run("run")
    assert bare.returncode == 2
    assert bare.stderr.startswith("error: no recipe")
    assert len(bare.stderr.splitlines()) == 1
