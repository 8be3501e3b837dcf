"""How each command of `hindi-babylm` begins and ends."""

import importlib
import os
import signal
from collections.abc import Sequence

import pytest

from hindi_babylm import commands
from hindi_babylm.commands import COMMANDS, carry_out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_page(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """--help prints how the command is used, and does nothing else."""
    commands.main([name, "--help"])
    assert capsys.readouterr().out.startswith("usage: ")


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "run"])
def test_a_signal_ends_every_command_in_a_line(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGINT and SIGTERM end a command with exit code 75 and a line in place of a traceback."""
    module = importlib.import_module(COMMANDS[name][0])

    def interrupted(words: Sequence[str]) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(module, "carry_out", lambda argv, do, **told: carry_out(argv, interrupted, **told))
    with pytest.raises(SystemExit) as stopped:
        commands.main([name, "x"])
    assert stopped.value.code == 75
    assert capsys.readouterr().out.startswith("Interrupted.")
