"""The pipeline on one screen: prepare (corpus, tokenizer, blocks, model), then train, evaluate and report."""

import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hindi_babylm.curriculum.difficulty import NO_CURRICULUM, sort_by_difficulty
from hindi_babylm.recipe.parsing import parse_command_line
from hindi_babylm.recipe.sections import Recipe
from hindi_babylm.storage import RunFolder, UserError, exit_on_user_error, read_json, write_atomically, write_json

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from hindi_babylm.packing import Blocks, TokenStore
    from hindi_babylm.training.arguments import HindiTrainingArguments

EXIT_INTERRUPTED = 75  # EX_TEMPFAIL: the same command continues the run


@dataclass
class Prepared:
    """What training and evaluation need of the stages before them."""

    arguments: "HindiTrainingArguments"
    tokenizer: "PreTrainedTokenizerFast"
    stores: "dict[str, TokenStore]"
    blocks: "dict[str, Blocks]"
    model: "PreTrainedModel"


def main(argv: Sequence[str] | None = None) -> None:
    """Run `python -m hindi_babylm.run RECIPE [--key value ...]`."""
    words = list(sys.argv[1:] if argv is None else argv)
    if "--help" in words or "-h" in words:
        from hindi_babylm.recipe.listing import run_help, training_help

        sys.stdout.write((training_help() if "training" in words else run_help()) + "\n")
        return
    with exit_on_user_error():
        recipe, switches = parse_command_line(words)
        with exit_on_signal():
            run(recipe, overwrite="overwrite" in switches)


@contextmanager
def exit_on_signal() -> Iterator[None]:
    """Let SIGTERM, SIGINT and SIGUSR1 end the stages before and after the training with code 75; it has its own way."""

    def leave(number: int, frame: Any) -> None:
        say(f"Interrupted by {signal.Signals(number).name}; the same command continues.")
        raise SystemExit(EXIT_INTERRUPTED)

    from hindi_babylm.training.interruption import interruption_signals

    before = {number: signal.signal(number, leave) for number in interruption_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run(recipe: Recipe, *, overwrite: bool = False) -> dict[str, Any]:
    """Carry out a recipe in its run folder and return what `results.json` holds (in the main process).

    Raises UserError for a folder that holds another run, and for what the data show to be wrong.
    """
    from hindi_babylm.reporting import summary
    from hindi_babylm.training.machine import keep_freed_memory, use_all_cores

    use_all_cores()
    keep_freed_memory()
    resume = recipe.training.pop("resume_from_checkpoint", None)
    folder = RunFolder(recipe.output_dir)
    is_main = os.environ.get("RANK", "0") == "0"
    with folder.locked() if is_main else nullcontext():
        state = "new" if overwrite else folder.state(recipe.resolved())
        if state == "finished":
            say(f"{folder.path} holds this recipe's finished run; --overwrite runs it again.")
        else:
            prepared = prepare(recipe, folder, go_on=state == "unfinished")
            if not folder.training.exists():
                order = recipe.curriculum
                stages = order.stage_epochs if order.curriculum != NO_CURRICULUM else ()
                train(prepared, folder, stage_epochs=stages, config=recipe.resolved(), resume=resume)
            if not is_main:
                return {}  # the other processes do not wait: a long evaluation would outlast their time-out
            evaluate(prepared, folder, architecture=recipe.model.architecture, tasks=recipe.evaluation.tasks)
    results: dict[str, Any] = read_json(folder.results)
    say(summary(results, folder=folder.path))
    return results


def prepare(recipe: Recipe, folder: RunFolder, *, go_on: bool = False) -> Prepared:
    """Build corpus, tokenizer, blocks and model: written by the main process, read by all.

    With `go_on` the data that an unfinished run has written whole are used as they are.
    """
    arguments = recipe.training_arguments()
    recipe.check_model()
    # Only now: what is wrong with a recipe is told before the libraries that read data are imported.
    _quiet_libraries()
    from transformers import AutoTokenizer

    from hindi_babylm.modeling import build_model, count_parameters
    from hindi_babylm.packing import TokenStore, pack

    settings = recipe.model
    if arguments.process_index == 0:
        if go_on and folder.corpus.exists():
            folder.sweep()
            say(f"Going on with the unfinished run in {folder.path}")
        else:
            _write_data(recipe, folder, data_seed=_data_seed(arguments))
    _wait_for_everyone()

    tokenizer: Any = AutoTokenizer.from_pretrained(folder.tokenizer)
    stores = {split: TokenStore(folder.tokens / split) for split in ("train", "validation", "test")}
    blocks = {split: pack(store, block_size=settings.block_size) for split, store in stores.items()}
    model = build_model(
        architecture=settings.architecture,
        tokenizer=tokenizer,
        block_size=settings.block_size,
        dropout=settings.dropout,
        model_config=settings.model_config,
        seed=arguments.seed,
    )
    if arguments.process_index == 0:
        say(f"Blocks: {len(blocks['train']):,} of {settings.block_size} tokens to train on")
        say(f"Model: {settings.architecture}, {count_parameters(model) / 1e6:.1f}M parameters")
    return Prepared(arguments, tokenizer, stores, blocks, model)


def train(
    prepared: Prepared,
    folder: RunFolder,
    *,
    stage_epochs: Sequence[int] = (),
    config: dict[str, Any],
    resume: str | None = None,
) -> None:
    """Train from the newest whole checkpoint of the folder, or from `resume`, and export the chosen weights.

    The facts of the training are written to `training.json` when `final_model` is whole. Exits with code 75
    (try again: the same command continues) when a signal has ended the training.
    """
    from hindi_babylm.curriculum.sampler import CurriculumSampler
    from hindi_babylm.reporting import environment
    from hindi_babylm.storage import sha256
    from hindi_babylm.training.advice import Advice, out_of_memory_told
    from hindi_babylm.training.callbacks import MetricsFile
    from hindi_babylm.training.checkpoint import newest_checkpoint, newest_sharded_checkpoint
    from hindi_babylm.training.export import export
    from hindi_babylm.training.trainer import HindiLanguageModelTrainer

    arguments, blocks = prepared.arguments, prepared.blocks["train"]
    processes = arguments.world_size
    multiple = processes * arguments.per_device_train_batch_size if processes > 1 else 1
    trainer = HindiLanguageModelTrainer(
        prepared.model,
        arguments,
        blocks,
        prepared.blocks["validation"],
        prepared.tokenizer,
        train_sampler=CurriculumSampler(
            blocks.words(), seed=_data_seed(arguments), multiple=multiple, stage_epochs=stage_epochs
        ),
        callbacks=[MetricsFile(folder.metrics), Advice(block_size=blocks.block_size)],
        config=config,
    )
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
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        if trainer.is_world_process_zero():
            say("FSDP or DeepSpeed: checkpoints are transformers' sharded folders, checkpoint-{step}, and no .pt files")
        resume = resume or newest_sharded_checkpoint(folder.path)
    elif resume is None:
        found, refused = newest_checkpoint(folder.checkpoints)
        resume = str(found) if found else None
        if trainer.is_world_process_zero():
            for line in refused:
                say(f"Passed over {line}")
    if resume is not None and trainer.is_world_process_zero():
        say(f"Resuming from {resume}")
    with out_of_memory_told(arguments, block_size=blocks.block_size):
        trainer.train(resume)
    if trainer.interrupted:
        if trainer.is_world_process_zero():
            say(f"Interrupted by a signal after step {trainer.state.global_step}; the same command continues.")
        raise SystemExit(EXIT_INTERRUPTED)
    export(trainer, folder)


def evaluate(prepared: Prepared, folder: RunFolder, *, architecture: str, tasks: Sequence[str]) -> None:
    """Score the exported model in fp32, as a stranger would open it, and write `results.json`."""
    from hindi_babylm.evaluation.tasks import continue_texts, evaluate_model, load_final_model
    from hindi_babylm.modeling import count_parameters

    texts = {split: _read_documents(folder.tokens / split) for split in ("validation", "test")}
    model, tokenizer = load_final_model(folder.final_model)
    figures = evaluate_model(
        model,
        tokenizer,
        splits={split: (prepared.stores[split], texts[split]) for split in texts},
        train_store=prepared.stores["train"],
        block_size=prepared.blocks["train"].block_size,
        tasks=tasks,
    )
    facts = read_json(folder.training)
    results = {
        "format": 1,
        "model": {
            "architecture": architecture,
            "parameters": count_parameters(model),
            "which": facts["which"],
            "step": facts["step"],
        },
        "training": facts["training"],
        **figures,
        "continuations": continue_texts(model, tokenizer, texts["test"]),
    }
    write_json(folder.results, results)


def say(line: str) -> None:
    """Print a line at once, so that the log of a cluster shows it while the run goes on."""
    print(line, flush=True)


def _quiet_libraries() -> None:
    """Silence bars that tell a user nothing: those of saving and loading, and all of them without a terminal."""
    import datasets
    import transformers

    transformers.utils.logging.disable_progress_bar()
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()


def _data_seed(arguments: "HindiTrainingArguments") -> int:
    return arguments.data_seed if arguments.data_seed is not None else arguments.seed


def _wait_for_everyone() -> None:
    from accelerate import PartialState

    PartialState().wait_for_everyone()


def _read_documents(folder: Path) -> "Dataset":
    """Read the documents that a token store was made from: `text, source, document_id, work`."""
    import datasets

    with open(folder / "documents.jsonl", encoding="utf-8", newline="\n") as file:
        return datasets.Dataset.from_list([json.loads(line) for line in file])


def _write_data(recipe: Recipe, folder: RunFolder, *, data_seed: int) -> None:
    """Write the tokenizer, the token stores with the documents to evaluate on, and, last, `corpus.json`."""
    from hindi_babylm.corpus.splits import build_corpus
    from hindi_babylm.evaluation.tasks import check_tasks
    from hindi_babylm.packing import TokenStore
    from hindi_babylm.tokenization import load_tokenizer, tokenizer_report, train_tokenizer

    corpus, settings = recipe.corpus, recipe.tokenizer
    texts, ledger = build_corpus(
        sources=corpus.sources,
        max_words=corpus.max_words,
        validation_fraction=corpus.validation_fraction,
        test_fraction=corpus.test_fraction,
        split_seed=corpus.split_seed,
    )
    if ledger.words("train") < recipe.model.block_size:
        raise UserError(
            f"{recipe.path}: the train split has {ledger.words('train')} words, fewer than one block of "
            f"model.block_size {recipe.model.block_size} tokens: give more text, or lower it"
        )
    parts = ", ".join(f"{split} {ledger.words(split):,}" for split in texts)
    say(f"Corpus: {ledger.words():,} words in {sum(map(len, texts.values())):,} documents ({parts})")
    for reason, entry in ledger.dropped.items():
        say(f"  dropped {entry['documents']:,} documents, {entry['words']:,} words: {reason}")

    if settings.tokenizer is not None:
        tokenizer = load_tokenizer(settings.tokenizer)
    else:
        tokenizer = train_tokenizer(
            texts["train"]["text"],
            algorithm=settings.algorithm,
            vocab_size=settings.vocab_size,
            max_length=recipe.model.block_size,
        )
    check_tasks(tokenizer, recipe.evaluation.tasks, block_size=recipe.model.block_size)
    # Only now: data that are refused leave no trace, and a run that they should have replaced is still there.
    folder.clear()
    write_json(folder.recipe, recipe.resolved())
    tokenizer.save_pretrained(folder.tokenizer)
    report = tokenizer_report(tokenizer, texts["validation"]["text"])
    say(
        f"Tokenizer: {len(tokenizer):,} tokens; on validation {report['tokens_per_word']:.2f} tokens a word, "
        f"{100 * report['round_trip']:.1f} % of documents come back whole"
    )
    if report["round_trip"] < 1:
        say("Warning: this tokenizer loses text, so its bits per byte do not compare with a lossless one's.")
    order = recipe.curriculum
    if order.curriculum != NO_CURRICULUM:
        texts["train"] = sort_by_difficulty(texts["train"], curriculum=order.curriculum, seed=data_seed)
    for split, documents in texts.items():
        store = TokenStore.write(
            folder.tokens / split, texts=documents["text"], words=documents["words"], tokenizer=tokenizer
        )
        ledger.add_tokens(split, documents["source"], store.lengths())
        if split != "train":
            rows = documents.select_columns(["text", "source", "document_id", "work"])
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            with write_atomically(folder.tokens / split / "documents.jsonl") as temporary:
                temporary.write_bytes(lines.encode("utf-8"))
    write_json(folder.corpus, {**ledger.as_dict(), "tokenizer": {"validation": report}})


if __name__ == "__main__":
    main()
