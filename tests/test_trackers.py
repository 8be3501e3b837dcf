"""Trackers: what reaches them equals metrics.jsonl, and none of them stops or stalls a training."""

import json
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import wandb
from transformers import TrainerCallback
from transformers.integrations import integration_utils
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
from wandb.proto import wandb_internal_pb2

from hindi_babylm.run import main
from hindi_babylm.storage import UserError
from hindi_babylm.training import trackers
from hindi_babylm.training.arguments import HindiTrainingArguments
from hindi_babylm.training.callbacks import MetricsFile
from hindi_babylm.training.interruption import Interruption
from hindi_babylm.training.trackers import TRACKERS, check_trackers
from hindi_babylm.training.trainer import HindiLanguageModelTrainer
from tests.runs import command, environment
from tests.test_interruption import signalling_at
from tests.test_training import Rows, tiny_model

WriteRecipe = Callable[..., Path]
HOOKS = ["on_init_end", "on_train_begin", "on_step_end", "on_log", "on_evaluate", "on_train_end"]


@pytest.fixture(autouse=True)
def wandb_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Keep every file of W&B under the test's folder, and leave no run open."""
    for name in ("WANDB_DIR", "WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    # A machine that runs other tests may be slow to start W&B's own process: no test is about that.
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "300")
    monkeypatch.setenv("WANDB__SERVICE_WAIT", "300")
    monkeypatch.setattr(trackers, "PATIENCE", 600.0)
    yield tmp_path / "wandb"
    wandb.teardown()


def records(run: Path) -> Iterator[Any]:
    """Yield the records of an offline run's file: LevelDB's log format behind a header of 7 bytes."""
    (path,) = run.glob("run-*.wandb")
    data, position, record = path.read_bytes(), 7, b""
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:  # the end of a block
            position += left
            continue
        length, kind = struct.unpack_from("<HB", data, position + 4)
        record += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            parsed = wandb_internal_pb2.Record()  # type: ignore[attr-defined]
            parsed.ParseFromString(record)
            record = b""
            yield parsed


def history(run: Path) -> list[dict[str, Any]]:
    """Return the events of an offline run, without W&B's own clocks."""
    rows = []
    for record in records(run):
        if record.WhichOneof("record_type") == "history":
            row = {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
            rows.append({name: value for name, value in row.items() if not name.startswith("_")})
    # The closing summary of the stock Trainer is none of metrics.jsonl's events.
    return [row for row in rows if row.keys() & {"train/loss", "eval/loss"}]


def figures(metrics: Path) -> list[dict[str, Any]]:
    """Return metrics.jsonl under the names that transformers gives to trackers."""
    rows = []
    for line in metrics.read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        event["global_step"] = event.pop("step")
        evaluation = "eval_"
        rows.append(
            {
                f"eval/{name.removeprefix(evaluation)}" if name.startswith(evaluation) else f"train/{name}": value
                for name, value in event.items()
            }
        )
    return rows


def runs_of(folder: Path) -> list[Path]:
    """Return the offline runs of a folder, oldest first."""
    return sorted(folder.glob("offline-run-*"), key=lambda path: path.stat().st_mtime_ns)


def test_offline_wandb_run_reads_as_metrics_jsonl(
    write_recipe: WriteRecipe, wandb_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Project, name, tags, notes, recipe, every figure and, when asked for, final_model stand in the offline run."""
    monkeypatch.setenv("WANDB_LOG_MODEL", "end")
    secrets = {"HF_TOKEN": "hf_secret", "WANDB_API_KEY": "0123456789abcdef" * 2 + "01234567"}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    recipe = write_recipe(
        report_to="wandb",
        project="hindi",
        run_name="first",
        wandb_tags=["tiny", "test"],
        wandb_notes="Two epochs.",
        num_train_epochs=2,
    )
    main([str(recipe)])
    folder = recipe.parent / "run"
    (run,) = runs_of(wandb_folder)
    parts: dict[str, list[Any]] = {}
    for record in records(run):
        kind = record.WhichOneof("record_type")
        parts.setdefault(kind, []).append(getattr(record, kind))
    (opened,) = parts["run"]
    assert (opened.project, opened.display_name, opened.notes) == ("hindi", "first", "Two epochs.")
    assert list(opened.tags) == ["tiny", "test"]
    config = {update.key: json.loads(update.value_json) for update in opened.config.update}
    resolved = json.loads((folder / "recipe.json").read_text(encoding="utf-8"))
    assert {section: config[section] for section in resolved} == resolved

    seen = history(run)
    assert seen == figures(folder / "metrics.jsonl")
    steps = json.loads((folder / "results.json").read_text(encoding="utf-8"))["training"]["steps"]
    assert sum({"train/loss", "train/grad_norm", "train/learning_rate"} <= row.keys() for row in seen) == steps
    assert sum({"eval/loss", "eval/perplexity", "train/epoch_train_loss"} <= row.keys() for row in seen) == 2

    (artifact,) = parts["artifact"]
    assert artifact.type == "model"
    uploaded = {entry.path for entry in artifact.manifest.contents}
    # The card is written later, with the results.
    assert uploaded == {path.name for path in (folder / "final_model").iterdir()} - {"README.md"}
    assert "model.safetensors" in uploaded
    assert not any(name.endswith((".bin", ".pt", ".pkl")) for name in uploaded)
    assert next(run.glob("run-*.wandb")).stat().st_size > 10_000
    for path in [*wandb_folder.rglob("*"), *folder.rglob("*")]:
        assert path.is_dir() or not any(value.encode() in path.read_bytes() for value in secrets.values()), path


def test_resumed_run_continues_its_wandb_run(
    write_recipe: WriteRecipe, wandb_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run id lies in every checkpoint, and a resumed run goes on under it with the steps that are missing."""
    recipe = write_recipe(report_to="wandb", num_train_epochs=2)
    with monkeypatch.context() as patch:
        patch.setattr(Interruption, "on_step_end", signalling_at(4))
        with pytest.raises(SystemExit):
            main([str(recipe)])
    wandb.finish()  # the end of the process does it
    (checkpoint,) = (recipe.parent / "run" / "checkpoints").glob("*.pt")
    ids = torch.load(checkpoint, weights_only=True)["tracker_run_ids"]
    main([str(recipe)])
    first, second = runs_of(wandb_folder)
    opened = [record.run.run_id for run in (first, second) for record in records(run) if record.HasField("run")]
    assert opened == [ids["wandb"]] * 2
    assert history(first) + history(second) == figures(recipe.parent / "run" / "metrics.jsonl")


KILLED = """
import os, signal, time
from hindi_babylm.training.interruption import Interruption

def kill(self, args, state, control, **kwargs):
    if state.global_step == 10:
        time.sleep(5)  # what was sent is written, and counted
        os.kill(os.getpid(), signal.SIGKILL)

Interruption.on_step_end = kill
from hindi_babylm.run import main
main()
"""


def test_a_killed_run_sends_no_event_twice(write_recipe: WriteRecipe, wandb_folder: Path) -> None:
    """What was sent after the last checkpoint before a SIGKILL is not sent again, and nothing is left out."""
    saving = {"save_strategy": "steps", "save_steps": 4, "eval_strategy": "steps", "eval_steps": 3}
    recipe = write_recipe(
        report_to="wandb", num_train_epochs=3, logging_steps=1, load_best_model_at_end=False, **saving
    )
    killed = [sys.executable, "-c", KILLED, str(recipe)]
    done = subprocess.run(killed, capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == -signal.SIGKILL, done.stderr
    main([str(recipe)])
    first, second = map(history, runs_of(wandb_folder))
    assert max(row["train/global_step"] for row in first) > 4  # the checkpoint's: there was something to send twice
    seen, told = first + second, figures(recipe.parent / "run" / "metrics.jsonl")
    # The step after the checkpoint was done twice, at two speeds.
    speeds = ("runtime", "per_second")
    for rows in (seen, told):
        rows[:] = [{name: value for name, value in row.items() if not name.endswith(speeds)} for row in rows]
    assert seen == told
    opened = [record.run.run_id for run in runs_of(wandb_folder) for record in records(run) if record.HasField("run")]
    assert len(opened) == 2
    assert len(set(opened)) == 1


def test_tensorboard_reads_as_metrics_jsonl(write_recipe: WriteRecipe) -> None:
    """Every figure of metrics.jsonl is a scalar of the event file, at its step, in float32."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    recipe = write_recipe(report_to="tensorboard", num_train_epochs=2)
    main([str(recipe)])
    (file,) = (recipe.parent / "run").rglob("events.out.tfevents.*")
    events = accumulator.EventAccumulator(str(file), size_guidance={"scalars": 0}).Reload()
    rows = figures(recipe.parent / "run" / "metrics.jsonl")
    for name in ("train/loss", "train/grad_norm", "train/learning_rate", "train/epoch_train_loss", "eval/perplexity"):
        scalars = [(scalar.step, scalar.value) for scalar in events.Scalars(name)]
        assert scalars == [(row["train/global_step"], pytest.approx(row[name])) for row in rows if name in row]


def test_missing_package_is_left_out(
    write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run whose tracker is not installed says so in one line and ends like any other."""
    monkeypatch.setitem(sys.modules, "wandb", None)
    recipe = write_recipe(report_to="wandb")
    main([str(recipe)])
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Warning")]
    assert line.endswith("its package is not installed (pip install wandb)")
    assert "the tracker wandb is left out" in line
    assert (recipe.parent / "run" / "results.json").exists()
    assert (recipe.parent / "run" / "metrics.jsonl").exists()


@pytest.mark.parametrize(("name", "packages"), [("tensorboard", ["tensorboard", "tensorboardX"]), ("wandb", ["wandb"])])
def test_a_missing_package_is_told_before_data_are_read(
    name: str,
    packages: list[str],
    write_recipe: WriteRecipe,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The tracker without a package is named, with the package, before the first source is opened."""

    def stop(**settings: Any) -> None:
        raise UserError("the sources are opened")

    monkeypatch.setattr("hindi_babylm.corpus.assembly.build_corpus", stop)
    for package in packages:
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SystemExit):
        main([str(write_recipe(report_to=["mlflow", name]))])
    told = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in told[:-1]] == [
        f"Warning: the tracker {tracker} is left out" for tracker in ("mlflow", name)
    ]
    assert f"pip install {packages[0]}" in told[1]
    assert told[-1].endswith("the sources are opened")


def test_packages_are_those_that_transformers_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tracker counts as installed exactly when transformers finds its package, and one of ours always does."""
    looked_for: list[str] = []
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: looked_for.append(name))
    monkeypatch.setitem(trackers.TRACKERS, "csv", TrainerCallback)
    stock = [name for name in INTEGRATION_TO_CALLBACK if name not in ("kubeflow", "neptune", "comet_ml")]
    assert trackers.installed_trackers([*stock, "csv"]) == ["csv"]
    ours, looked_for[:] = set(looked_for), []
    for question in ("azureml", "clearml", "codecarbon", "dvclive", "flytekit", "mlflow", "swanlab", "tensorboard"):
        getattr(integration_utils, f"is_{question}_available")()
    integration_utils.is_trackio_available()
    integration_utils.is_wandb_available()
    integration_utils.is_dagshub_available()
    assert ours == {name for name in looked_for if "." not in name}


def test_unreachable_server_makes_an_offline_run(write_recipe: WriteRecipe, wandb_folder: Path) -> None:
    """A run whose W&B server does not answer says so in one line, keeps the figures offline and ends like any other."""
    recipe = write_recipe(report_to="wandb")
    surroundings = environment(
        WANDB_MODE="online", WANDB_BASE_URL="http://127.0.0.1:9", WANDB_API_KEY="0" * 40, WANDB_INIT_TIMEOUT="1"
    )
    done = subprocess.run(command(recipe), capture_output=True, text=True, check=False, env=surroundings)
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("Warning")]
    assert "W&B opens no online run, so this one is kept offline" in line
    (run,) = runs_of(wandb_folder)
    assert history(run) == figures(recipe.parent / "run" / "metrics.jsonl")
    assert (recipe.parent / "run" / "results.json").exists()


@pytest.mark.xdist_group("torchrun")  # one launcher at a time: they look for free ports
def test_two_processes_open_one_run(write_recipe: WriteRecipe, wandb_folder: Path) -> None:
    """On two processes the first one alone reports, every step once."""
    recipe = write_recipe(report_to="wandb")
    done = subprocess.run(command(recipe, processes=2), capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = runs_of(wandb_folder)
    assert history(run) == figures(recipe.parent / "run" / "metrics.jsonl")


class Recorder(TrainerCallback):
    """A tracker that writes down what it is told; `act` is called first."""

    def __init__(self, act: Callable[[str], None]) -> None:
        self.act, self.heard = act, list[tuple[str, int]]()


def _hook(name: str) -> Callable[..., None]:
    def hook(self: Recorder, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.act(name)
        self.heard.append((name, state.global_step))

    return hook


for _name in HOOKS:
    setattr(Recorder, _name, _hook(_name))


class OnStep(TrainerCallback):
    """Call a function at the end of a step."""

    def __init__(self, step: int, act: Callable[[], None]) -> None:
        self.step, self.act = step, act

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            self.act()


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[HindiLanguageModelTrainer, Recorder]]:
    """Return a function that trains ten steps with a tracker of the test in the place of flyte."""

    def run(act: Callable[[str], None], *callbacks: TrainerCallback) -> tuple[HindiLanguageModelTrainer, Recorder]:
        recorder = Recorder(act)
        monkeypatch.setitem(TRACKERS, "flyte", lambda: recorder)
        arguments = HindiTrainingArguments(
            output_dir=str(tmp_path / "run"),
            precision="fp32",
            global_batch_size=4,
            num_train_epochs=2,
            logging_steps=1,
            report_to=["flyte"],
        )
        trainer = HindiLanguageModelTrainer(
            tiny_model("gpt2"),
            arguments,
            Rows([12] * 20),
            Rows([12, 3, 7], seed=1),
            callbacks=[MetricsFile(tmp_path / "metrics.jsonl"), *callbacks],
        )
        trainer.train()
        assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 12  # ten steps, two evaluations
        return trainer, recorder

    return run


def warnings_of(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return the warnings on stdout."""
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("Warning")]


@pytest.mark.parametrize("hook", HOOKS)
def test_raising_tracker_is_switched_off(train: Any, capsys: pytest.CaptureFixture[str], hook: str) -> None:
    """A tracker that raises, wherever it does, is told once with its error and hears no more; the training goes on."""

    calls = []

    def act(name: str) -> None:
        calls.append(name)
        if name == hook:
            raise RuntimeError("no disk\nsecond line")

    trainer, _ = train(act)
    assert trainer.state.global_step == 10
    (line,) = warnings_of(capsys)
    assert "the tracker flyte is switched off" in line
    assert f"{hook} raised RuntimeError: no disk" in line
    assert calls.index(hook) == len(calls) - 1


@pytest.mark.parametrize("hook", ["on_train_begin", "on_log", "on_train_end"])
def test_hanging_tracker_is_left_behind(
    train: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, hook: str
) -> None:
    """A tracker that never returns costs a training no more than the patience for it, once, and a line."""
    monkeypatch.setattr(trackers, "PATIENCE", 0.2)
    forever = threading.Event()
    trainer, _ = train(lambda name: None if name != hook else bool(forever.wait()) and None)
    assert trainer.state.global_step == 10
    (line,) = warnings_of(capsys)
    assert "the tracker flyte is switched off" in line
    assert "is not done after 0.2 s" in line
    forever.set()


def test_slow_tracker_hears_everything_and_delays_nothing(train: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Steps do not wait for a tracker: its first event is handled after the last step, each under its own number."""
    over = threading.Event()

    def act(name: str) -> None:
        if name == "on_log":
            assert over.wait(60)

    _, recorder = train(act, OnStep(10, over.set))
    assert warnings_of(capsys) == []
    assert [step for name, step in recorder.heard if name == "on_step_end"] == list(range(1, 11))
    # Every step, an evaluation after the 5th and the 10th, and the stock summary at the end.
    assert [step for name, step in recorder.heard if name == "on_log"] == [1, 2, 3, 4, 5, 5, 6, 7, 8, 9, 10, 10, 10]
    assert recorder.heard[-1] == ("on_train_end", 10)


def test_trackers_stay_in_the_arguments(train: Any) -> None:
    """The arguments name the trackers after the trainer is built, so that a second trainer has them too."""
    trainer, _ = train(lambda name: None)
    assert trainer.args.report_to == ["flyte"]


def test_open_wandb_run_is_used_and_left_open(tmp_path: Path) -> None:
    """A run that the caller has opened is the training's, and stays open for what comes after it."""
    opened = wandb.init(project="notebook", mode="offline")
    arguments = HindiTrainingArguments(
        output_dir=str(tmp_path / "run"), precision="fp32", num_train_epochs=1, report_to=["wandb"]
    )
    trainer = HindiLanguageModelTrainer(tiny_model("gpt2"), arguments, Rows([12] * 32), Rows([12]))
    trainer.train()
    (checkpoint,) = (tmp_path / "run" / "checkpoints").glob("checkpoint_epoch_*.pt")
    assert torch.load(checkpoint, weights_only=True)["tracker_run_ids"] == {"wandb": opened.id}
    trainer.trackers.close(tmp_path)
    assert wandb.run is opened


def test_unknown_tracker_is_refused() -> None:
    """A tracker that transformers does not know is refused with the nearest name, or with all of them."""
    with pytest.raises(ValueError, match="unknown tracker 'wandbb'; did you mean 'wandb'"):
        check_trackers(["wandbb"])
    with pytest.raises(ValueError, match=r"there are none, .*wandb"):
        check_trackers("xyz")
    check_trackers(None)
    check_trackers(list(TRACKERS))


def test_upload_of_checkpoints_is_refused(
    write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """WANDB_LOG_MODEL=checkpoint is refused in one line that names the way out, before anything is written."""
    monkeypatch.setenv("WANDB_LOG_MODEL", "checkpoint")
    recipe = write_recipe(report_to="wandb")
    with pytest.raises(SystemExit) as ended:
        main([str(recipe)])
    assert ended.value.code == 2
    assert "set it to end" in capsys.readouterr().err
    assert not (recipe.parent / "run").exists()
