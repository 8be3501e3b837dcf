"""The pipeline on one screen: prepare (corpus, tokenizer, blocks, model), then train, evaluate, report and publish."""

import dataclasses
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hindi_babylm.console import quiet_warnings, say, set_level, show
from hindi_babylm.curriculum.difficulty import NO_CURRICULUM
from hindi_babylm.evaluation.provenance import tell_changed, tell_changed_meanwhile
from hindi_babylm.lock import locked
from hindi_babylm.preparation import Prepared, data_seed, prepare
from hindi_babylm.recipe.parsing import parse_command_line
from hindi_babylm.recipe.sections import Recipe
from hindi_babylm.signals import EXIT_INTERRUPTED, end_process, exit_on_signal
from hindi_babylm.storage import RunFolder, UserError, exit_on_user_error, read_json, write_json

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from hindi_babylm.training.trainer import HindiLanguageModelTrainer


def main(argv: Sequence[str] | None = None) -> None:
    """Run `python -m hindi_babylm.run RECIPE [--key value ...]`."""
    words = list(sys.argv[1:] if argv is None else argv)
    if "--help" in words or "-h" in words:
        from hindi_babylm.recipe.listing import help_page

        with exit_on_user_error():
            sys.stdout.write(help_page(words) + "\n")
        return
    told = ""  # what follows from an interruption at this moment
    try:
        with exit_on_user_error(), exit_on_signal():
            recipe, switches = parse_command_line(words)
            if "dry_run" in switches:
                told = " Nothing was trained."
                dry_run(recipe)
                return
            restarting = [name for name in ("overwrite", "resume_from_checkpoint") if f"--{name}" in words]
            if restarting and int(os.environ.get("SLURM_RESTART_COUNT", "0")):
                # The queue starts a job again with the words of its first start.
                recipe.training.pop("resume_from_checkpoint", None)
                switches, restarting = switches - {"overwrite"}, []
            without = f" without --{' and --'.join(restarting)}" if restarting else ""
            told = f" The same command{without} continues."
            run(recipe, overwrite="overwrite" in switches)
    except SystemExit as stop:
        if stop.code == EXIT_INTERRUPTED:
            say(f"Interrupted.{told}")
        raise


def run(recipe: Recipe, *, overwrite: bool = False) -> dict[str, Any]:
    """Carry out a recipe in its run folder and return what `results.json` holds (in the main process).

    Raises UserError for a folder that holds another run, and for what the data show to be wrong.
    """
    from hindi_babylm.reporting.card import write_card
    from hindi_babylm.reporting.hub import check_token, command_of
    from hindi_babylm.reporting.publish import publish
    from hindi_babylm.reporting.report import write_report
    from hindi_babylm.reporting.summary import summary

    set_up_console(recipe)
    resume = recipe.training.pop("resume_from_checkpoint", None)
    folder = RunFolder(recipe.output_dir)
    if resume and overwrite and Path(resume).resolve().is_relative_to(folder.path.resolve()):
        raise UserError(f"command line: --overwrite would delete --resume_from_checkpoint {resume}: leave one out")
    with locked(folder.path) if _is_main() else nullcontext():
        state = "new" if overwrite else folder.state(recipe.resolved())
        publishing = recipe.reporting.push_to_hub and _is_main()
        if publishing:
            check_token(str(recipe.reporting.hub_model_id), later=command_of(folder, **recipe.reporting.target()))
        if resume and state != "new" and folder.training.exists():
            raise UserError(
                f"{folder.path} has done its training: --resume_from_checkpoint would have no effect: leave it out, or "
                "choose another --output_dir"
            )
        if state == "finished":
            say(f"{folder.path} holds this recipe's finished run; --overwrite runs it again.")
        else:
            from hindi_babylm.training.machine import set_up_machine

            set_up_machine()
            prepared = prepare(recipe, folder, go_on=state == "unfinished")
            if not folder.training.exists():
                train(prepared, folder, pacing=_pacing(recipe), config=recipe.resolved(), resume=resume)
            if not _is_main():
                return {}  # the other processes do not wait: a long evaluation would outlast their time-out
            evaluate(prepared, folder, architecture=recipe.model.architecture, tasks=recipe.evaluation.tasks)
        results: dict[str, Any] = read_json(folder.results)
        if _is_main():
            if state != "finished" or not folder.report.exists():
                write_report(folder, title=folder.path.resolve().name)
            if state != "finished" or (folder.final_model.exists() and not folder.card.exists()):
                write_card(folder)
            tell_changed(folder, recipe.evaluation.tasks)
            show(summary(results, folder=folder.path))
        if publishing:
            publish(folder, **recipe.reporting.target())
    return results


def train(
    prepared: Prepared,
    folder: RunFolder,
    *,
    pacing: Mapping[str, Any],
    config: dict[str, Any],
    resume: str | None = None,
) -> None:
    """Train from the newest whole checkpoint of the folder, or from `resume`, and export the chosen weights.

    `pacing` holds what `CurriculumSampler` takes of a curriculum, nothing without one.
    The facts of the training are written to `training.json` when `final_model` is whole. Exits with code 75
    (try again: the same command continues) when a signal has ended the training.
    """
    from hindi_babylm.reporting.summary import environment
    from hindi_babylm.storage import sha256
    from hindi_babylm.training.advice import Advice, out_of_memory_told
    from hindi_babylm.training.callbacks import MetricsFile
    from hindi_babylm.training.export import export
    from hindi_babylm.training.milestones import Milestones, milestone_words
    from hindi_babylm.training.resumption import checkpoint_to_resume

    arguments, blocks = prepared.arguments, prepared.blocks["train"]
    callbacks = [MetricsFile(folder.metrics), Advice(block_size=blocks.block_size)]
    trainer = make_trainer(prepared, pacing=pacing, callbacks=callbacks, config=config)
    if words := milestone_words(arguments.milestones):
        trainer.add_callback(Milestones(trainer, folder.revisions, words))
    if trainer.is_world_process_zero():
        record = environment(precision=arguments.precision, processes=arguments.world_size)
        record["sha256"] = {
            str(path.relative_to(folder.path)): sha256(path)
            for path in [folder.tokenizer / "tokenizer.json", *sorted(folder.tokens.glob("*/tokens.bin"))]
        }
        write_json(folder.environment, record)
        say(
            f"Training: batch {arguments.global_batch_size} = {arguments.per_device_train_batch_size} x "
            f"{arguments.world_size} processes x {arguments.gradient_accumulation_steps} accumulated, "
            f"{arguments.precision}"
        )
    resume = checkpoint_to_resume(trainer, folder, resume)
    with out_of_memory_told(arguments, block_size=blocks.block_size):
        trainer.train(resume)
    if trainer.interruption.agreed:
        if trainer.is_world_process_zero():
            say(f"Stopped after step {trainer.state.global_step}.")
        raise SystemExit(EXIT_INTERRUPTED)
    export(trainer, folder)
    if trainer.interruption.asked:  # after the last step, when there was nothing left to stop
        raise SystemExit(EXIT_INTERRUPTED)


def make_trainer(
    prepared: Prepared,
    *,
    pacing: Mapping[str, Any],
    callbacks: "Sequence[TrainerCallback]" = (),
    config: dict[str, Any] | None = None,
) -> "HindiLanguageModelTrainer":
    """Return the trainer of the prepared data and model, with the order of blocks."""
    from hindi_babylm.curriculum.sampler import CurriculumSampler
    from hindi_babylm.training.trainer import HindiLanguageModelTrainer

    arguments, blocks = prepared.arguments, prepared.blocks["train"]
    processes = arguments.world_size
    multiple = processes * arguments.per_device_train_batch_size if processes > 1 else 1
    sampler = CurriculumSampler(blocks.words, seed=data_seed(arguments), multiple=multiple, **pacing)
    return HindiLanguageModelTrainer(
        prepared.model,
        arguments,
        blocks,
        prepared.blocks["validation"],
        prepared.tokenizer,
        train_sampler=sampler,
        callbacks=callbacks,
        config=config,
    )


def dry_run(recipe: Recipe) -> dict[str, Any]:
    """Print what a run of the recipe would be, after its first steps, and return it; nothing that it writes stays.

    The data are prepared as for the run, in a temporary folder (TMPDIR; on several machines it must be shared).
    """
    set_up_console(recipe)
    if recipe.training.pop("resume_from_checkpoint", None) is not None:
        where = recipe.place("resume_from_checkpoint")
        raise UserError(f"{where}: --dry_run plans a whole run: leave resume_from_checkpoint out")
    from hindi_babylm.modeling import count_parameters, objective_of
    from hindi_babylm.reporting.summary import plan_table
    from hindi_babylm.training.plan import plan, plan_pacing

    with trainer_aside(recipe) as (prepared, trainer):
        facts = plan(trainer)
        facts["parameters"] = count_parameters(prepared.model)
        facts["objective"] = objective_of(recipe.model.architecture)
        facts["splits"] = {
            split: {
                "documents": len(store),
                "words": int(store.words.sum()),
                "tokens": len(store.tokens),
                "blocks": len(prepared.blocks[split]),
            }
            for split, store in prepared.stores.items()
        }
        facts |= plan_pacing(trainer) if _pacing(recipe) else {}
        trainer.accelerator.wait_for_everyone()
        if trainer.is_world_process_zero():
            show(plan_table(facts))
    return facts


@contextmanager
def trainer_aside(recipe: Recipe) -> "Iterator[tuple[Prepared, HindiLanguageModelTrainer]]":
    """Yield data and trainer of a recipe in a temporary folder; its run folder is not touched, nothing is tracked."""
    from accelerate.utils import broadcast_object_list

    from hindi_babylm.training.machine import set_up_machine

    set_up_machine()
    with tempfile.TemporaryDirectory(prefix="hindi-babylm-", ignore_cleanup_errors=True) as own:
        untracked = {**recipe.training, "output_dir": own, "report_to": "none"}
        recipe = dataclasses.replace(recipe, training=untracked)
        recipe.training_arguments()  # joins the processes, which the next line needs
        (shared,) = broadcast_object_list([own])
        prepared = prepare(recipe, RunFolder(Path(shared)))
        yield prepared, make_trainer(prepared, pacing=_pacing(recipe))


def evaluate(prepared: Prepared, folder: RunFolder, *, architecture: str, tasks: Sequence[str]) -> None:
    """Score the exported model in fp32, as a stranger would open it, and write `items/` and `results.json`."""
    from hindi_babylm.evaluation.continuations import continue_texts
    from hindi_babylm.evaluation.ngram import Floors
    from hindi_babylm.evaluation.scorer import Scorer
    from hindi_babylm.evaluation.tasks import evaluate_model, load_final_model
    from hindi_babylm.modeling import MASKED, count_parameters, objective_of
    from hindi_babylm.packing import read_documents
    from hindi_babylm.training.milestones import read_milestones

    texts = {split: read_documents(folder.tokens / split) for split in ("validation", "test")}
    model, tokenizer = load_final_model(folder.final_model)
    trained_on = prepared.stores["train"]
    figures = evaluate_model(
        Scorer.of(model, tokenizer, block_size=prepared.blocks["train"].block_size),
        splits=texts,
        floors=Floors(trained_on.tokens, vocab_size=len(tokenizer), eos_token_id=trained_on.eos_token_id),
        tasks=tasks,
        items=folder.items,
    )
    facts = read_json(folder.training)
    objective = objective_of(architecture)
    results = {
        "format": 1,
        "model": {
            "architecture": architecture,
            "objective": objective,
            "parameters": count_parameters(model),
            "which": facts["which"],
            "weights": facts["weights"],
            "step": facts["step"],
        },
        "training": facts["training"],
        "advice": facts["advice"],
        "milestones": read_milestones(folder.revisions),
        **figures,
    }
    if objective != MASKED:  # which continues no text: it predicts single tokens from both sides
        results["continuations"] = continue_texts(model, tokenizer, texts["test"])
    tell_changed_meanwhile(folder, results)
    seen = {unit: facts["training"][unit] for unit in ("epochs", "words_seen", "tokens")}
    write_json(folder.corpus, {**read_json(folder.corpus), "seen": seen})
    write_json(folder.results, results)


def set_up_console(recipe: Recipe) -> None:
    """Print what the recipe's `log_level` asks for, in the main process and in the others."""
    set_level(recipe.training["log_level"] if _is_main() else recipe.training.get("log_level_replica", "warning"))
    quiet_warnings()


def _is_main() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _pacing(recipe: Recipe) -> dict[str, Any]:
    """Return what the sampler takes of the recipe's curriculum, nothing without one."""
    order = dataclasses.asdict(recipe.curriculum)
    return order if order.pop("curriculum") != NO_CURRICULUM else {}


if __name__ == "__main__":
    main()
    end_process()
