"""What a person sees: bars on a terminal, plain lines without one, and nothing wider than 80 columns."""

import json
import os
import re
import subprocess
import sys
import tempfile
import unicodedata
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hindi_babylm import console
from tests.runs import environment

WriteRecipe = Callable[..., Path]
COLUMNS = 80
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
# Every stage that takes long with a long text or a large model.
STAGES = [
    "Measuring tokenizer",
    "Encoding train",
    "Encoding validation",
    "Encoding test",
    "Evaluating",
    "Scoring validation",
    "Scoring test",
    "Minimal pairs",
    "Continuing texts",
]


@pytest.fixture(autouse=True)
def usual_level() -> Iterator[None]:
    """Leave the level as it was."""
    yield
    console.set_level("passive")


def on_terminal(words: list[str], folder: Path, **extra: str) -> tuple[int, str]:
    """Run a command in a folder on a pseudo terminal of 80 columns; return its exit code and what it showed."""
    import fcntl
    import pty
    import struct
    import termios

    main, other = pty.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
    process = subprocess.Popen(
        words, stdin=other, stdout=other, stderr=other, cwd=folder, env=surroundings(**extra), start_new_session=True
    )
    os.close(other)
    shown = b""
    while True:
        try:
            part = os.read(main, 2**16)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    os.close(main)
    return process.wait(), shown.decode("utf-8")


def surroundings(**extra: str) -> dict[str, str]:
    """Return the environment of a command, without the mode of W&B, about which a library prints a line."""
    # A cache of its own: a corpus that an earlier test has read would be reused.
    own = {"HF_DATASETS_CACHE": tempfile.mkdtemp(prefix="hindi-babylm-datasets-"), **extra}
    return {name: value for name, value in environment(**own).items() if name != "WANDB_MODE"}


def command(recipe: Path, *flags: str) -> list[str]:
    """Return the command of a run into the folder `run` beside the recipe."""
    return [sys.executable, "-m", "hindi_babylm.run", recipe.name, "--output_dir", "run", *flags]


def long_recipe(write_recipe: WriteRecipe) -> Path:
    """Return a recipe with every stage: two epochs, minimal pairs, warnings of libraries."""
    recipe = write_recipe(num_train_epochs=2, gradient_checkpointing=True)
    content = json.loads(recipe.read_text(encoding="utf-8"))
    content["evaluation"]["tasks"] = ["hindi_pairs_pud"]
    content["model"]["block_size"] = 256  # a pair must fit
    recipe.write_text(json.dumps(content), encoding="utf-8")
    return recipe


def width(text: str) -> int:
    """Return the columns of a line: signs that combine with the letter before take none."""
    return sum(unicodedata.category(sign) not in ("Mn", "Me", "Cf") for sign in text)


def test_a_terminal_shows_a_bar_for_every_stage_within_80_columns(write_recipe: WriteRecipe) -> None:
    """On a terminal of 80 columns every stage has a bar that reaches its end, and no line is wider."""
    recipe = long_recipe(write_recipe)
    code, shown = on_terminal(command(recipe), recipe.parent, TERM="xterm")
    assert code == 0, shown
    plain = ESCAPE.sub("\n", shown)
    for stage in STAGES:
        assert re.search(rf"^{stage}: 100%\|", plain.replace("\r", "\n"), re.M), (stage, shown)
    assert re.search(r"Reading \S+: 80 documents \[", plain)
    assert "Compute merges" in plain  # of the tokenizer: the library's own
    assert len(re.findall(r"Training: 100%\|[^\r\n]*loss=\d+\.\d{3}\]", plain)) >= 2
    assert "\x1b[1mEpoch 1/2\x1b[0m" in shown
    # The tokenizer's bars fill the line to its end, where the terminal wraps by itself.
    lines = re.split(r"[\r\n]|(?=\[\d\d:\d\d:\d\d\] )", plain)
    assert [line for line in lines if width(line) > COLUMNS] == []


def test_long_paths_are_cut_in_the_middle_on_a_terminal(write_recipe: WriteRecipe) -> None:
    """On a terminal of 80 columns lines keep beginning and end of a long path; a pipe and errors have it whole."""
    path = f"/data/{'a-long-name/' * 9}checkpoint_step_6.pt"
    code = (
        "from hindi_babylm.console import bar, say, show, warn\n"
        f"say('Checkpoint saved: {path} (best so far)')\n"
        f"show('\\nModel:  {path}\\nक/ख ' + 'गा' * 38)\n"
        f"warn('no {path}')\n"
        f"bar('Reading {path}', 4).close()\n"
    )
    words = [sys.executable, "-c", code]
    folder = write_recipe().parent
    status, shown = on_terminal(words, folder, TERM="dumb")
    assert status == 0
    first, _, second, text, warning, progress = shown.replace("\r\n", "\n").strip("\n").split("\n")
    assert re.fullmatch(
        r"Checkpoint saved: /data/a-long[\w/-]+\.\.\.[\w/-]+/checkpoint_step_6\.pt \(best so far\)", first
    )
    assert re.fullmatch(r"Model:  /data/a-long-name[\w/-]+\.\.\.[\w/-]+/checkpoint_step_6\.pt", second)
    assert len(first) == len(second) == COLUMNS
    assert text == "क/ख " + "गा" * 38
    assert warning == f"Warning: no {path}"
    assert re.match(r"\rReading /data/a-[\w/-]*\.\.\.[\w/-]*checkpoint_step_6\.pt:   0%\|", progress)
    done = subprocess.run(words, capture_output=True, check=True, cwd=folder, env=surroundings())
    assert done.stdout.decode().count(path) == 2


def test_no_color_is_respected(write_recipe: WriteRecipe) -> None:
    """With NO_COLOR a terminal gets no style, and with TERM=dumb neither."""
    code = (
        "from hindi_babylm.console import say, warn\nsay('Epoch 1/2', heading=True)\nwarn('the tokenizer loses text')\n"
    )
    words = [sys.executable, "-c", code]
    folder = write_recipe().parent
    status, shown = on_terminal(words, folder, TERM="xterm")
    assert status == 0
    assert "\x1b[1mEpoch 1/2\x1b[0m" in shown
    assert "\x1b[33mWarning:\x1b[0m the tokenizer loses text" in shown
    for extra in ({"TERM": "xterm", "NO_COLOR": "1"}, {"TERM": "dumb"}):
        _, shown = on_terminal(words, folder, **extra)
        assert shown.replace("\r", "") == "Epoch 1/2\nWarning: the tokenizer loses text\n"


def test_a_log_of_a_cluster_is_plain_lines(write_recipe: WriteRecipe) -> None:
    """Without a terminal there is a line a stage, no carriage return, no control code, nothing on stderr."""
    recipe = long_recipe(write_recipe)
    done = subprocess.run(
        command(recipe), capture_output=True, check=False, cwd=recipe.parent, env=surroundings(TERM="xterm")
    )
    out, err = done.stdout.decode("utf-8"), done.stderr.decode("utf-8")
    assert done.returncode == 0, err
    assert err == ""
    assert "\r" not in out
    assert "\x1b" not in out
    for stage in ["Reading .*", "Training tokenizer", *STAGES]:
        assert re.search(rf"^{stage}: [\d,]+ \w+, [\d.]+ s$", out, re.M), (stage, out)
    steps = [int(step) for step in re.findall(r"^Training: step (\d+)/\d+, loss=\d", out, re.M)]
    assert steps == list(range(1, steps[-1] + 1))  # the last steps of each epoch too
    assert steps[-1] == json.loads((recipe.parent / "run" / "results.json").read_text())["training"]["steps"]
    source = json.loads(recipe.read_text(encoding="utf-8"))["corpus"]["sources"][0]["path"]
    assert [line for line in out.splitlines() if width(line) > COLUMNS and source not in line] == []


def test_log_level_decides_what_is_printed(
    write_recipe: WriteRecipe, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`warning` leaves warnings and the closing table, `error` the table alone; neither makes another recipe."""
    from hindi_babylm.run import main

    monkeypatch.delenv("WANDB_MODE", raising=False)  # transformers prints a line about it
    recipe = write_recipe()
    main([str(recipe), "--log_level", "warning"])
    out, err = capfd.readouterr()
    assert out.startswith("\nmodel  ")
    assert err == ""
    main([str(recipe)])  # not refused as a run of another recipe
    out, err = capfd.readouterr()
    assert "finished run" in out
    for level, warned in (("info", True), ("warning", True), ("error", False)):
        console.set_level(level)
        console.say("a line")
        console.warn("a warning")
        out, err = capfd.readouterr()
        assert (out == "a line\n") == (level == "info")
        assert (err == "Warning: a warning\n") == warned


def test_an_unknown_log_level_is_refused(write_recipe: WriteRecipe, capsys: pytest.CaptureFixture[str]) -> None:
    """A level that does not exist is refused with the ones that do."""
    from hindi_babylm.run import main

    with pytest.raises(SystemExit) as stop:
        main([str(write_recipe()), "--log_level", "loud"])
    assert stop.value.code == 2
    assert "expected one of passive, debug, info, warning, error, critical" in capsys.readouterr().err


def test_a_command_goes_on_when_nobody_reads(tmp_path: Path) -> None:
    """What is printed into a closed pipe, as of `... | head`, ends no command, and leaves no traceback."""
    told = "from hindi_babylm.console import say, show; show('x' * 10**6); say('y'); show('z'); open('done', 'w')"
    command = [sys.executable, "-c", told]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment()
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0
    assert (tmp_path / "done").exists()


def test_only_named_warnings_are_silenced() -> None:
    """Warnings on the list are silenced; any other of the same library is shown."""
    messages = [
        "`gradient_checkpointing` is deprecated and will be removed in v6. Use `activation_checkpointing` instead.",
        "barrier(): using the device under current context. You can specify `device_id` in `init_process_group`",
        "Detected call of `lr_scheduler.step()` before `optimizer.step()`. In PyTorch 1.1.0 and later",
    ]
    assert len(messages) == len(console.SILENCED)
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        console.quiet_warnings()
        for message in [*messages, "something new"]:
            warnings.warn(message, FutureWarning, stacklevel=1)
    assert [str(warning.message) for warning in shown] == ["something new"]
