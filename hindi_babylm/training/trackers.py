"""The trackers of transformers (W&B, TensorBoard and others), kept from stopping or stalling a training."""

import copy
import importlib.util
import os
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from io import FileIO
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK, WandbCallback, WandbLogModel

from hindi_babylm.console import warn
from hindi_babylm.storage import first_line, suggestion
from hindi_babylm.training.callbacks import is_event

if TYPE_CHECKING:
    from hindi_babylm.training.arguments import HindiTrainingArguments

PATIENCE = 60.0  # seconds that a run waits for a tracker at the start and the end of the training
WANDB_INIT_TIMEOUT = 15.0  # seconds; wandb adds 10 to it
WANDB_FLUSH_INTERVAL = 0.2  # seconds between writes of an offline run's file; W&B's own 15 s are lost by a kill
WANDB_FLUSHED = 1.0  # seconds after which an event lies in the file
WANDB_FINISH_TIMEOUT = {False: 45.0, True: 600.0}  # seconds, without and with a model to upload


def check_trackers(names: str | Sequence[str] | None) -> None:
    """Raise ValueError for a tracker that is not in `TRACKERS`, and for an upload that is not possible."""
    names = [names] if isinstance(names, str) else names or []
    for name in names:
        if name == "none" and len(names) > 1:
            raise ValueError("'none' stands alone: leave it out, or the trackers")
        if name not in TRACKERS:
            raise ValueError(f"unknown tracker {name!r}; {suggestion(name, ['none', *TRACKERS])}")
    if "wandb" in names and os.environ.get("WANDB_LOG_MODEL", "").lower() == WandbLogModel.CHECKPOINT:
        raise ValueError(
            "the environment variable WANDB_LOG_MODEL=checkpoint would upload files that hold pickles: "
            "set it to end, which uploads final_model, or unset it"
        )


def installed_trackers(names: str | Sequence[str] | None) -> list[str]:
    """Return those of `names` whose packages are installed, and warn of the others; nothing is imported.

    Trackers of our own have no package.
    """
    installed = []
    for name in [names] if isinstance(names, str) else names or []:
        packages = PACKAGES.get(name, (name,)) if TRACKERS.get(name) is INTEGRATION_TO_CALLBACK.get(name, "") else ()
        if packages and not any(importlib.util.find_spec(package) for package in packages):
            warn(
                f"the tracker {name} is left out, metrics.jsonl has every figure: its package is not installed (pip "
                f"install {packages[0]})"
            )
        else:
            installed.append(name)
    return installed


class Trackers(TrainerCallback):
    """Pass a training's events on to the trackers of `report_to`, each in a thread of its own.

    A tracker whose package cannot be imported, that raises, or that keeps the start or end of the training waiting for
    more than `PATIENCE` seconds is switched off with one line. `run_ids` go into every checkpoint; those of a
    checkpoint, given before `train`, continue its runs. Artifacts of checkpoints are not uploaded.
    """

    def __init__(self, args: "HindiTrainingArguments", config: Mapping[str, Any]) -> None:
        self.run_ids: dict[str, str] = {}
        self._events = 0  # of the run so far, those of its parts before this one included
        check_trackers(args.report_to)
        self._names = list(args.report_to or [])  # a list: the arguments made it one
        # The stock Trainer would add them once more, unguarded; on_init_end gives the names back.
        args.report_to = []
        self._threads: list[_TrackerThread] = []
        for name in self._names if args.process_index == 0 else []:
            try:
                callback = WandbTracker(self.run_ids, config) if name == "wandb" else TRACKERS[name]()
            except Exception as error:  # what a broken package raises, whichever it is
                warn(f"the tracker {name} is left out, metrics.jsonl has every figure: {_told(error)}")
            else:
                self._threads.append(_TrackerThread(name, callback))

    def on_init_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        args.report_to = self._names
        self._pass_on("on_init_end", args, state, control, **kwargs)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._events = sum(map(is_event, state.log_history))
        self._pass_on("on_train_begin", args, state, control, patience=PATIENCE, **kwargs)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._pass_on("on_step_end", args, state, control, **kwargs)

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        logs = dict(kwargs["logs"])
        self._events += is_event(logs)
        number = self._events if is_event(logs) else None
        self._pass_on("on_log", args, state, control, **{**kwargs, "logs": logs, "event_number": number})

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._pass_on("on_evaluate", args, state, control, **kwargs)

    def on_predict(self, args: Any, state: Any, control: Any, metrics: Any, **kwargs: Any) -> None:
        self._pass_on("on_predict", args, state, control, metrics=metrics, **kwargs)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._pass_on("on_train_end", args, state, control, patience=PATIENCE, **kwargs)

    def close(self, final_model: Path) -> None:
        """End the W&B run that this training opened; with `WANDB_LOG_MODEL=end` upload the folder first."""
        for thread in self._threads:
            if isinstance(thread.callback, WandbTracker):
                done = thread.submit("finish", partial(thread.callback.finish, final_model))
                thread.wait("finish", done, thread.callback.finish_timeout + PATIENCE)

    def _pass_on(self, hook: str, args: Any, state: Any, control: Any, *, patience: float = 0.0, **kwargs: Any) -> None:
        """Hand an event to every tracker, with copies of what the training changes meanwhile."""
        now = copy.copy(state), copy.copy(control)
        heard = [
            (thread, thread.submit(hook, partial(getattr(thread.callback, hook), args, *now, **kwargs)))
            for thread in self._threads
            if patience or getattr(type(thread.callback), hook) is not getattr(TrainerCallback, hook)
        ]
        for thread, done in heard if patience else []:
            thread.wait(hook, done, patience)


class _TrackerThread:
    """A thread that carries out what is submitted, in order, until a job raises or keeps the run waiting."""

    def __init__(self, name: str, callback: TrainerCallback) -> None:
        self.name, self.callback = name, callback
        self._off = False
        self._jobs: SimpleQueue[tuple[str, Callable[[], Any], threading.Event]] = SimpleQueue()
        # A daemon: a tracker that hangs would keep the process from ending.
        threading.Thread(target=self._work, name=f"tracker {name}", daemon=True).start()

    def submit(self, hook: str, job: Callable[[], Any]) -> threading.Event:
        """Queue a job and return the event that is set when it is done, or dropped."""
        done = threading.Event()
        if self._off:
            done.set()
        else:
            self._jobs.put((hook, job, done))
        return done

    def wait(self, hook: str, done: threading.Event, seconds: float) -> None:
        """Wait for a job, and leave the tracker behind when it takes longer than `seconds`."""
        if not done.wait(seconds) and not self._off:
            self._switch_off(f"{hook} is not done after {seconds:g} s, with {self._jobs.qsize()} events behind it")

    def _work(self) -> None:
        while True:
            hook, job, done = self._jobs.get()
            try:
                if not self._off:
                    job()
            except Exception as error:  # a tracker's error is its own: told once, and the training goes on
                self._switch_off(f"{hook} raised {_told(error)}")
            done.set()

    def _switch_off(self, reason: str) -> None:
        self._off = True
        warn(f"the tracker {self.name} is switched off, metrics.jsonl has every figure: {reason}")


class WandbTracker(WandbCallback):
    """The stock callback in a run opened with the recipe's project, name, tags, notes and configuration.

    A server that does not answer, or a missing API key, makes it an offline run. The run id stands in `run_ids`
    and is the one that it has already, if any. An event that a killed part of an offline run has in its file is not
    written again: how many it has stands in `checkpoints/wandb-ID.sent`.
    """

    def __init__(self, run_ids: dict[str, str], config: Mapping[str, Any]) -> None:
        super().__init__()
        # The stock uploads look for stock checkpoints, and add training_args.bin, a pickle with the hub token.
        self._uploads, self._log_model = self._log_model == WandbLogModel.END, WandbLogModel.FALSE
        self.finish_timeout = float(os.environ.get("WANDB_FINISH_TIMEOUT", WANDB_FINISH_TIMEOUT[self._uploads]))
        self._run_ids, self._config, self._opened = run_ids, config, False
        self._sent_before = 0  # events in the file of a part before this one
        self._sent: SimpleQueue[tuple[float, int]] | None = None  # when events were sent, and their numbers
        # Chosen here and not by W&B, so that no checkpoint has to wait for it.
        run_ids["wandb"] = os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4)

    def setup(self, args: Any, state: Any, model: Any, **kwargs: Any) -> None:
        """Open the run, unless the caller has one open, and let the stock callback fill it."""
        if self._wandb.run is None:
            self._open(args)
            self._opened = True
        else:
            self._run_ids["wandb"] = self._wandb.run.id
        super().setup(args, state, model, **kwargs)

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Open the run, and find out how much of the training it has already."""
        super().on_train_begin(args, state, control, model=model, **kwargs)
        self._open_count(Path(args.output_dir) / "checkpoints", resumed=state.global_step > 0)

    def on_log(self, args: Any, state: Any, control: Any, model: Any = None, logs: Any = None, **kwargs: Any) -> None:
        """Send an event, unless a part of the run before this one has, and count those that are in the file."""
        number = kwargs.get("event_number")
        if number is not None and number <= self._sent_before:
            return
        super().on_log(args, state, control, model=model, logs=logs, **kwargs)
        if number is not None and self._sent is not None:
            self._sent.put((time.monotonic(), number))

    def _open_count(self, folder: Path, *, resumed: bool) -> None:
        """Read how many events of an offline run that was opened here are in its files, and go on counting."""
        path = folder / f"wandb-{self._run_ids['wandb']}.sent"
        self._sent_before = int(path.read_bytes() or b"0") if resumed and path.exists() else 0
        if self._sent is None and self._opened and self._wandb.run.offline:
            folder.mkdir(parents=True, exist_ok=True)
            file = path.open("r+b" if path.exists() else "xb", buffering=0)
            self._sent = SimpleQueue()
            threading.Thread(target=_count_flushed, args=(self._sent, file), name="wandb count", daemon=True).start()

    def finish(self, final_model: Path) -> None:
        """End the run if it was opened here; upload the folder first where it was asked for."""
        if self._uploads:
            artifact = self._wandb.Artifact(name=f"model-{self._run_ids['wandb']}", type="model")
            artifact.add_dir(str(final_model))
            self._wandb.log_artifact(artifact, aliases=["final_model"])
        if self._opened:
            self._wandb.finish()

    def _open(self, args: Any) -> None:
        wandb = self._wandb
        options: dict[str, Any] = {
            "project": os.environ.get("WANDB_PROJECT", args.project),
            "name": args.run_name,
            "tags": args.wandb_tags,
            "notes": args.wandb_notes,
            "config": dict(self._config),
            "id": self._run_ids["wandb"],
            "resume": "allow",
        }
        limits: dict[str, Any] = {
            "finish_timeout": self.finish_timeout,
            "x_transaction_log_flush_interval": WANDB_FLUSH_INTERVAL,
        }
        if "WANDB_INIT_TIMEOUT" not in os.environ:
            limits["init_timeout"] = WANDB_INIT_TIMEOUT
        try:
            wandb.init(**options, settings=wandb.Settings(**limits))
        except wandb.Error as error:
            warn(f"W&B opens no online run, so this one is kept offline (wandb sync uploads it): {_told(error)}")
            wandb.teardown()  # else the id is still in use by the attempt that failed
            # A short limit is for the server: offline there is none.
            wandb.init(**options, settings=wandb.Settings(**limits | {"init_timeout": PATIENCE}), mode="offline")


def _count_flushed(sent: "SimpleQueue[tuple[float, int]]", file: FileIO) -> None:
    """Write the number of each event to `file` once W&B has written the event to its own."""
    while True:
        moment, number = sent.get()
        time.sleep(max(0.0, moment + WANDB_FLUSHED - time.monotonic()))
        # One write in one place: whenever the process is killed, the file holds a number.
        file.seek(0)
        file.write(f"{number:020d}\n".encode())


def _told(error: Exception) -> str:
    """Return the type and the first line of an error."""
    return f"{type(error).__name__}: {first_line(error)}"


# Name in `report_to` -> callback. W&B's stands for the run that `WandbTracker` opens.
TRACKERS: dict[str, Callable[[], TrainerCallback]] = {**INTEGRATION_TO_CALLBACK}

# Tracker of transformers -> its packages, of which one suffices, where they have another name than the tracker.
PACKAGES: dict[str, tuple[str, ...]] = {
    "azure_ml": ("azureml",),
    "flyte": ("flytekit",),
    "kubeflow": (),
    "tensorboard": ("tensorboard", "tensorboardX"),
}
