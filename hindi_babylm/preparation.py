"""The data and the model of a recipe: corpus, tokenizer, blocks, fresh weights; what a run and its plan begin with."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hindi_babylm.console import quiet_bars, say, warn
from hindi_babylm.curriculum.difficulty import NO_CURRICULUM, rank_correlation, sort_by_difficulty
from hindi_babylm.recipe.sections import Recipe
from hindi_babylm.storage import RunFolder, UserError, write_json

if TYPE_CHECKING:
    from datasets import DatasetDict
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from hindi_babylm.corpus.ledger import Ledger
    from hindi_babylm.masking import MaskedBlocks
    from hindi_babylm.packing import Blocks, TokenStore
    from hindi_babylm.training.arguments import HindiTrainingArguments


@dataclass
class Prepared:
    """What training and evaluation need of the stages before them."""

    arguments: "HindiTrainingArguments"
    tokenizer: "PreTrainedTokenizerFast"
    stores: "dict[str, TokenStore]"
    blocks: "dict[str, Blocks | MaskedBlocks]"
    model: "PreTrainedModel"


def prepare(recipe: Recipe, folder: RunFolder, *, go_on: bool = False) -> Prepared:
    """Build corpus, tokenizer, blocks and model: written by the main process, read by all.

    With `go_on` the data that an unfinished run has written whole are used as they are.
    """
    arguments = recipe.training_arguments()
    recipe.check_model()
    if arguments.report_to and arguments.process_index == 0:
        from hindi_babylm.training.trackers import installed_trackers

        arguments.report_to = installed_trackers(arguments.report_to)
    # Only now: what is wrong with a recipe is told before the libraries that read data are imported.
    quiet_bars()
    from transformers import AutoTokenizer

    from hindi_babylm.evaluation.provenance import check_unchanged
    from hindi_babylm.masking import MaskedBlocks
    from hindi_babylm.modeling import MASKED, build_model, count_parameters, objective_of
    from hindi_babylm.packing import Blocks, TokenStore, pack

    settings = recipe.model
    if arguments.process_index == 0:
        if go_on and folder.corpus.exists():
            check_unchanged(folder, recipe.evaluation.tasks)
            folder.sweep()
            say(f"Going on with the unfinished run in {folder.path}")
        else:
            _write_data(recipe, folder, data_seed=data_seed(arguments))
    _wait_for_everyone()

    tokenizer: Any = AutoTokenizer.from_pretrained(folder.tokenizer)
    stores = {split: TokenStore(folder.tokens / split) for split in ("train", "validation", "test")}
    blocks: dict[str, Blocks | MaskedBlocks] = {}
    for split, store in stores.items():
        # What is validated on has one seed and one order, so that runs with other seeds compare.
        seed = data_seed(arguments) if split == "train" else 0
        rows = blocks[split] = pack(
            store,
            block_size=settings.block_size,
            repack_seed=seed if settings.repack and split == "train" else None,
            document_attention=settings.document_attention,
        )
        if objective_of(settings.architecture) == MASKED:
            blocks[split] = MaskedBlocks(rows, tokenizer=tokenizer, probability=settings.mask_probability, seed=seed)
    with recipe.blamed("model_config"):
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


def read_corpus(recipe: Recipe) -> "tuple[DatasetDict, Ledger]":
    """Read the corpus of a recipe; see `build_corpus`."""
    from hindi_babylm.corpus.assembly import build_corpus
    from hindi_babylm.evaluation.tasks import task_texts

    corpus = recipe.corpus
    with recipe.blamed("sources"):
        texts, ledger = build_corpus(
            sources=corpus.sources,
            max_words=corpus.max_words,
            max_bytes=corpus.max_bytes,
            validation_fraction=corpus.validation_fraction,
            test_fraction=corpus.test_fraction,
            split_seed=corpus.split_seed,
            hygiene=corpus.hygiene,
            min_words=corpus.min_words,
            max_document_words=corpus.max_document_words,
            near_duplicate_threshold=corpus.near_duplicate_threshold,
            decontaminate=corpus.decontaminate,
            held_out={task: task_texts(task) for task in recipe.evaluation.tasks},
            strict=corpus.strict,
            workers=corpus.preprocessing_num_workers,
        )
    return texts, ledger


def tell_corpus(texts: "DatasetDict", ledger: "Ledger") -> None:
    """Print what a corpus holds, and what was changed and dropped."""
    say(f"Corpus: {ledger.words():,} words in {sum(map(len, texts.values())):,} documents")
    for line in ledger.lines():
        say(f"  {line}")


def data_seed(arguments: "HindiTrainingArguments") -> int:
    """Return the seed of the order of documents and blocks."""
    return arguments.data_seed if arguments.data_seed is not None else arguments.seed


def _wait_for_everyone() -> None:
    from accelerate import PartialState

    PartialState().wait_for_everyone()


def _write_data(recipe: Recipe, folder: RunFolder, *, data_seed: int) -> None:
    """Write the tokenizer, the token stores with the documents to evaluate on, and, last, `corpus.json`."""
    import numpy as np

    from hindi_babylm.evaluation.provenance import task_sha256
    from hindi_babylm.evaluation.tasks import TASK_SHA256, check_tasks, find_task
    from hindi_babylm.masking import mask_token_id
    from hindi_babylm.modeling import MASKED, objective_of
    from hindi_babylm.packing import TokenStore, write_documents
    from hindi_babylm.tokenization.report import tokenizer_report
    from hindi_babylm.tokenization.training import load_tokenizer, train_tokenizer

    settings = recipe.tokenizer
    with recipe.blamed("tasks"):
        # Before their texts are read and not after: what changes in between is then noticed when it is scored.
        cut_out = recipe.evaluation.tasks if recipe.corpus.decontaminate else []
        held = {find_task(task).name: task_sha256(task) for task in cut_out}
    texts, ledger = read_corpus(recipe)
    if ledger.words("train") < recipe.model.block_size:
        raise UserError(
            f"{recipe.place('block_size')} = {recipe.model.block_size} tokens: the train split has "
            f"{ledger.words('train')} words, fewer than one block: give more text, or lower it"
        )
    tell_corpus(texts, ledger)
    if settings.tokenizer is not None:
        with recipe.blamed("tokenizer"):
            tokenizer = load_tokenizer(settings.tokenizer)
            if objective_of(recipe.model.architecture) == MASKED:
                mask_token_id(tokenizer)
    else:
        with recipe.blamed("vocab_size"):
            tokenizer = train_tokenizer(
                texts["train"]["text"],
                algorithm=settings.algorithm,
                vocab_size=settings.vocab_size,
                max_length=recipe.model.block_size,
            )
    with recipe.blamed("tasks"):
        # A masked model's text has a token before it and one behind it.
        edges = 2 if objective_of(recipe.model.architecture) == MASKED else 0
        check_tasks(tokenizer, recipe.evaluation.tasks, room=recipe.model.block_size - edges)
    # Only now: data that are refused leave no trace, and a run that they should have replaced is still there.
    folder.clear()
    write_json(folder.recipe, recipe.resolved())
    tokenizer.save_pretrained(folder.tokenizer)
    report = tokenizer_report(tokenizer, texts["validation"]["text"])
    say(f"Tokenizer: {len(tokenizer):,} tokens, {report['tokens_per_word']:.2f} a word on validation")
    if report["round_trip"] < 1:
        warn(
            f"the tokenizer loses text: {100 * report['round_trip']:.1f} % of the documents come back whole, so its "
            "bits per byte do not compare with a lossless one's."
        )
    name, ordered = recipe.curriculum.curriculum, {}
    if name != NO_CURRICULUM:
        texts["train"] = sort_by_difficulty(texts["train"], curriculum=name, seed=data_seed)
        words = np.asarray(texts["train"]["words"])
        rho = rank_correlation(np.arange(len(words)), words)
        known = not np.isnan(rho)
        ordered = {"curriculum": {"name": name, "rank_correlation_with_length": rho if known else None}}
        if known:
            say(f"Curriculum: {name}, rank correlation with the words of documents {rho:.2f}")
    for split, documents in texts.items():
        store = TokenStore.write(
            folder.tokens / split, texts=documents["text"], words=documents["words"], tokenizer=tokenizer
        )
        ledger.add_tokens(split, documents["source"], store.lengths())
        if split != "train":
            write_documents(folder.tokens / split, documents)
    facts = {"tokenizer": {"validation": report}, **ordered, TASK_SHA256: held}
    write_json(folder.corpus, {**ledger.as_dict(), **facts})
