"""The pipeline on one screen: prepare (corpus, tokenizer, blocks, model), then train, evaluate and report."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hindi_babylm.recipe.parsing import parse_recipe
from hindi_babylm.recipe.sections import Recipe
from hindi_babylm.storage import RunFolder, UserError, exit_on_user_error, read_json, write_json

if TYPE_CHECKING:
    from datasets import DatasetDict
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from hindi_babylm.packing import Blocks, TokenStore
    from hindi_babylm.training.arguments import HindiTrainingArguments
    from hindi_babylm.training.trainer import HindiLanguageModelTrainer


@dataclass
class Prepared:
    """What training and evaluation need of the stages before them; only the main process has the texts."""

    arguments: "HindiTrainingArguments"
    texts: "DatasetDict | None"
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
        if not words or words[0].startswith("--"):
            raise UserError("no recipe: accelerate launch -m hindi_babylm.run recipes/quickstart.json (see --help)")
        flags = [word for word in words[1:] if word != "--overwrite"]
        run(parse_recipe(words[0], flags), overwrite="--overwrite" in words)


def run(recipe: Recipe, *, overwrite: bool = False) -> dict[str, Any]:
    """Carry out a recipe in its run folder and return what `results.json` holds.

    Raises UserError for a folder that holds another run, and for what the data show to be wrong.
    """
    from hindi_babylm.reporting import summary

    _quiet_libraries()
    folder = RunFolder(recipe.output_dir)
    finished = open_folder(folder, recipe, overwrite=overwrite)
    if finished:
        say(f"{folder.path} holds this recipe's finished run; --overwrite runs it again.")
    else:
        prepared = prepare(recipe, folder)
        trainer, training = train(prepared, folder, config=recipe.resolved())
        if trainer.is_world_process_zero():
            evaluate(
                prepared, folder, architecture=recipe.model.architecture, tasks=recipe.evaluation.tasks, **training
            )
        trainer.accelerator.wait_for_everyone()
    results: dict[str, Any] = read_json(folder.results)
    if finished or trainer.is_world_process_zero():
        say(summary(results, folder=folder.path))
    return results


def open_folder(folder: RunFolder, recipe: Recipe, *, overwrite: bool) -> bool:
    """Tell whether the run folder holds this recipe's finished run; refuse any other run in it."""
    if not folder.recipe.exists() or overwrite:
        return False
    before, now = read_json(folder.recipe), recipe.resolved()
    different = [
        f"{section}.{key}"
        for section in now
        for key in now[section]
        if before.get(section, {}).get(key) != now[section][key]
    ]
    ways = "choose another --output_dir, or --overwrite to start again"
    if different:
        raise UserError(f"{folder.path} holds a run of another recipe (it differs in {', '.join(different)}): {ways}")
    if not folder.results.exists():
        raise UserError(f"{folder.path} holds an unfinished run of this recipe: {ways}")
    return True


def prepare(recipe: Recipe, folder: RunFolder) -> Prepared:
    """Build corpus, tokenizer, blocks and model: written by the main process, read by all."""
    arguments = recipe.training_arguments()
    from accelerate import PartialState
    from transformers import AutoTokenizer

    from hindi_babylm.modeling import build_model, count_parameters
    from hindi_babylm.packing import TokenStore, pack

    texts = None
    if arguments.process_index == 0:
        folder.clear()
        write_json(folder.recipe, recipe.resolved())
        texts = _write_data(recipe, folder)
    PartialState().wait_for_everyone()

    tokenizer: Any = AutoTokenizer.from_pretrained(folder.tokenizer)
    stores = {split: TokenStore(folder.tokens / split) for split in ("train", "validation", "test")}
    settings = recipe.model
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
    return Prepared(arguments, texts, tokenizer, stores, blocks, model)


def train(
    prepared: Prepared, folder: RunFolder, *, config: dict[str, Any]
) -> "tuple[HindiLanguageModelTrainer, dict[str, Any]]":
    """Train, export the chosen weights to `final_model`, and return the trainer and the facts of the training."""
    from hindi_babylm.curriculum import CurriculumSampler
    from hindi_babylm.reporting import environment, peak_memory_bytes
    from hindi_babylm.storage import replace_folder, sha256
    from hindi_babylm.training.callbacks import MetricsFile
    from hindi_babylm.training.trainer import HindiLanguageModelTrainer

    arguments, blocks = prepared.arguments, prepared.blocks["train"]
    seed = arguments.data_seed if arguments.data_seed is not None else arguments.seed
    sampler = CurriculumSampler(blocks.words(), seed=seed)
    trainer = HindiLanguageModelTrainer(
        prepared.model,
        arguments,
        blocks,
        prepared.blocks["validation"],
        prepared.tokenizer,
        train_sampler=sampler,
        callbacks=[MetricsFile(folder.metrics)],
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
            f"{arguments.precision}, schedule {config['training']['lr_scheduler_type']}"
        )
    outcome = trainer.train()
    if trainer.is_world_process_zero():
        model = trainer.accelerator.unwrap_model(trainer.model)
        model.config.use_cache = True  # off while training; wanted by whoever generates
        with replace_folder(folder.final_model) as target:
            model.save_pretrained(target)
            prepared.tokenizer.save_pretrained(target)
    seen = sampler.times_seen(trainer.blocks_seen())
    seconds = outcome.metrics["train_runtime"]
    tokens = int(seen @ blocks.tokens())
    return trainer, {
        "which": "best" if trainer.state.best_model_checkpoint and arguments.load_best_model_at_end else "last",
        "training": {
            "epochs": trainer.state.epoch,
            "steps": trainer.state.global_step,
            "tokens": tokens,
            "words_seen": float(seen @ sampler.block_words),
            "seconds": seconds,
            "tokens_per_second": tokens / seconds,
            "peak_memory_bytes": peak_memory_bytes(),
            "precision": arguments.precision,
        },
    }


def evaluate(
    prepared: Prepared,
    folder: RunFolder,
    *,
    architecture: str,
    tasks: Sequence[str],
    which: str,
    training: dict[str, Any],
) -> None:
    """Score the exported model in fp32, as a stranger would open it, and write `results.json`."""
    from hindi_babylm.evaluation.tasks import continue_texts, evaluate_model, load_final_model
    from hindi_babylm.modeling import count_parameters

    assert prepared.texts is not None
    model, tokenizer = load_final_model(folder.final_model)
    figures = evaluate_model(
        model,
        tokenizer,
        splits={split: (prepared.stores[split], prepared.texts[split]) for split in ("validation", "test")},
        train_store=prepared.stores["train"],
        block_size=prepared.blocks["train"].block_size,
        tasks=tasks,
    )
    results = {
        "format": 1,
        "model": {"architecture": architecture, "parameters": count_parameters(model), "which": which},
        "training": training,
        **figures,
        "continuations": continue_texts(model, tokenizer, prepared.texts["test"]),
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


def _write_data(recipe: Recipe, folder: RunFolder) -> "DatasetDict":
    """Write `corpus.json`, the tokenizer and the token stores, and return the documents."""
    from hindi_babylm.corpus import build_corpus
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
    tokenizer.save_pretrained(folder.tokenizer)
    report = tokenizer_report(tokenizer, texts["validation"]["text"])
    say(
        f"Tokenizer: {len(tokenizer):,} tokens; on validation {report['tokens_per_word']:.2f} tokens a word, "
        f"{100 * report['round_trip']:.1f} % of documents come back whole"
    )
    for split, documents in texts.items():
        store = TokenStore.write(
            folder.tokens / split, texts=documents["text"], words=documents["words"], tokenizer=tokenizer
        )
        ledger.add_tokens(split, documents["source"], store.lengths())
    write_json(folder.corpus, ledger.as_dict())
    return texts


if __name__ == "__main__":
    main()
