"""Model folders at word milestones, which BabyLM asks for: `revisions/chck_1M` and so on."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hindi_babylm.console import say, warn
from hindi_babylm.storage import read_json
from hindi_babylm.training.advice import Advice
from hindi_babylm.training.divergence import check_loss, check_weights
from hindi_babylm.training.export import save_model, weights_of

if TYPE_CHECKING:
    from hindi_babylm.training.trainer import HindiLanguageModelTrainer

MILLION = 10**6
# Every million words up to ten, then every ten million up to a hundred (BabyLM 2025, "Training requirements").
BABYLM_MILESTONES = (*range(MILLION, 10 * MILLION, MILLION), *range(10 * MILLION, 101 * MILLION, 10 * MILLION))
FACTS = "milestone.json"


class Milestones(TrainerCallback):
    """Write the model to `folder` at the first step that has seen so many words, with its validation perplexity.

    The evaluation is one of its own: it changes neither what is best nor how long early stopping waits, and no random
    number is drawn for it. A step that is done again after a resume writes its folder again, with the same bits.
    """

    def __init__(self, trainer: "HindiLanguageModelTrainer", folder: Path, words: Sequence[int]) -> None:
        self.trainer, self.folder, self.words = trainer, folder, words
        self.due: list[int] = []
        self._unlogged: tuple[int, dict[str, float]] | None = None  # a step, and its figures

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        seen = self._words_seen()
        self.due = [words for words in self.words if words > seen]
        for words in self.words[: len(self.words) - len(self.due)]:
            if state.is_world_process_zero and not (self.folder / milestone_name(words) / FACTS).is_file():
                warn(f"{self.folder / milestone_name(words)} is not there, and this training begins after it")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        seen = self._words_seen()
        reached = [words for words in self.due if words <= seen]
        if not reached:
            return
        self.due = self.due[len(reached) :]
        self.trainer.step_log.write(self.trainer)  # what was seen before an end is logged, too
        check_weights(self.trainer)
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        with self.trainer.step_log.paused(), self.trainer.average.applied(model):
            self._write(reached, seen, state)
        for part in self.trainer.callback_handler.callbacks:
            if isinstance(part, Advice):
                part.restart_clock()
        control.should_log = True  # the losses up to this step, after which `on_log` puts the figures

    def _write(self, reached: Sequence[int], seen: float, state: TrainerState) -> None:
        measured = self._evaluate()
        check_loss(self.trainer, "validation", measured["loss"], state.global_step)
        self._unlogged = state.global_step, measured
        # JSON has no infinity: null stands for what is past the range of a float.
        kind = "eval" if self.trainer.compute_loss_func is None else "masked_token"
        figures: dict[str, Any] = {
            f"{kind}_{name}": value if math.isfinite(value) else None for name, value in measured.items()
        }
        figures["weights"] = weights_of(self.trainer.args)
        for words in reached:
            name = milestone_name(words)
            facts = {"name": name, "words": words, "words_seen": seen, "step": state.global_step, **figures}
            save_model(self.trainer, self.folder / name, files={FACTS: facts})
            if state.is_world_process_zero:
                say(f"Milestone saved: {self.folder / name} (perplexity {measured['perplexity']:.2f})")

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self._unlogged is not None and "loss" in kwargs["logs"] and state.global_step == self._unlogged[0]:
            (_, figures), self._unlogged = self._unlogged, None
            self.trainer.log({f"eval_milestone_{name}": value for name, value in figures.items()})

    def _words_seen(self) -> float:
        """Return the words seen as the log has them: sums of shares of a document's words are not exact."""
        assert self.trainer.train_sampler is not None
        return round(self.trainer.train_sampler.words_seen(self.trainer.rows_seen()), 1)

    def _evaluate(self) -> dict[str, float]:
        """Return `loss` and `perplexity` on the validation blocks."""
        import torch

        handler = self.trainer.callback_handler
        # The console's bar would wait for an event that only an evaluation of the run itself ends with.
        callbacks, handler.callbacks = handler.callbacks, []
        try:
            with torch.random.fork_rng(devices=[]):  # a loader draws a seed for its workers
                loader = self.trainer.get_eval_dataloader()
                figures: Any = self.trainer.evaluation_loop(loader, description="Milestone").metrics
        finally:
            handler.callbacks = callbacks
        return {name: float(figures[f"eval_{name}"]) for name in ("loss", "perplexity")}


def milestone_words(asked: bool | Sequence[int]) -> list[int]:
    """Return the words of the recipe's `milestones`, in order: those of BabyLM for true.

    >>> milestone_words(True)[8:12], milestone_words([2000, 1000]), milestone_words(False)
    ([9000000, 10000000, 20000000, 30000000], [1000, 2000], [])
    """
    return list(BABYLM_MILESTONES) if asked is True else sorted(set(asked or []))


def milestone_name(words: int) -> str:
    """Name a milestone by millions where it has whole ones, else by thousands, else by words.

    >>> milestone_name(10_000_000), milestone_name(1_500_000), milestone_name(1234)
    ('chck_10M', 'chck_1500K', 'chck_1234')
    """
    for unit, size in (("M", MILLION), ("K", 1000)):
        if words % size == 0:
            return f"chck_{words // size}{unit}"
    return f"chck_{words}"


def read_milestones(folder: Path) -> list[dict[str, Any]]:
    """Return the facts of the milestones that `folder` holds, in the order of their words."""
    return sorted((read_json(path) for path in folder.glob(f"chck_*/{FACTS}")), key=lambda facts: int(facts["words"]))
