"""The figures of a finished model, and the registry of tasks that a recipe may name."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hindi_babylm.console import stage, track

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from hindi_babylm.packing import TokenStore

PROMPT_WORDS = 4
CONTINUATION_TOKENS = 48


def load_final_model(path: Path) -> "tuple[PreTrainedModel, PreTrainedTokenizerFast]":
    """Open an exported folder as anybody would, in fp32, on the GPU where there is one.

    >>> from hindi_babylm.modeling import build_model
    >>> from hindi_babylm.tokenization.training import train_tokenizer
    >>> tokenizer = train_tokenizer(["राम घर गया"], vocab_size=512)
    >>> size = {"n_layer": 1, "n_embd": 32, "n_head": 2}
    >>> build_model(architecture="gpt2", tokenizer=tokenizer, block_size=16, model_config=size).save_pretrained("tiny")
    >>> _ = tokenizer.save_pretrained("tiny")
    >>> model, tokenizer = load_final_model(Path("tiny"))
    >>> print(type(model).__name__, model.dtype, tokenizer.eos_token)
    GPT2LMHeadModel torch.float32 </s>
    """
    import torch
    from transformers import AutoConfig, AutoTokenizer

    from hindi_babylm.masking import auto_class

    device = "cuda" if torch.cuda.is_available() else "cpu"
    (architecture,) = AutoConfig.from_pretrained(path).architectures or [None]
    model: Any = auto_class(architecture).from_pretrained(path, dtype=torch.float32)
    tokenizer: Any = AutoTokenizer.from_pretrained(path)
    return model.to(device).eval(), tokenizer


def evaluate_model(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerFast",
    *,
    splits: "Mapping[str, tuple[TokenStore, Dataset]]",
    train_store: "TokenStore",
    block_size: int,
    tasks: Sequence[str],
) -> dict[str, Any]:
    """Return the perplexity family of each split and the accuracy of each task, as they stand in `results.json`.

    Beside them stand the figures of a trigram over the tokens of `train_store`. A masked model has
    a pseudo-perplexity: its figures have names of their own, and `scored_tokens`.

    >>> from datasets import Dataset
    >>> from hindi_babylm.modeling import build_model
    >>> from hindi_babylm.packing import TokenStore
    >>> from hindi_babylm.tokenization.training import train_tokenizer
    >>> texts = ["राम घर गया", "सीता ने आम खाया"]
    >>> tokenizer = train_tokenizer(texts * 10, vocab_size=512)
    >>> store = TokenStore.write("tokens/test", texts=texts, words=[3, 4], tokenizer=tokenizer)
    >>> size = {"n_layer": 1, "n_embd": 32, "n_head": 2}
    >>> model = build_model(architecture="gpt2", tokenizer=tokenizer, block_size=16, model_config=size)
    >>> documents = Dataset.from_dict({"text": texts, "source": ["mine", "mine"], "work": ["1", "2"]})
    >>> figures = evaluate_model(
    ...     model, tokenizer, splits={"test": (store, documents)}, train_store=store, block_size=16, tasks=[]
    ... )
    >>> # Fresh weights guess: the perplexity is about the size of the vocabulary.
    >>> 0.8 < figures["test"]["perplexity"] / len(tokenizer) < 1.2
    True
    >>> sorted(figures["test"]["bits_per_byte"]), figures["test"]["words"]
    (['high', 'low', 'value'], 7)
    >>> figures["test"]["trigram_bits_per_byte"]["value"] < figures["test"]["bits_per_byte"]["value"]
    True
    """
    from hindi_babylm.evaluation.minimal_pairs import accuracies, encode_pairs, load_pairs, score_pairs
    from hindi_babylm.evaluation.ngram import Trigram
    from hindi_babylm.evaluation.perplexity import document_nll, score_documents, unigram_nll
    from hindi_babylm.evaluation.pseudo_likelihood import SCORED_TOKENS, pseudo_figures, pseudo_nll
    from hindi_babylm.masking import is_masked

    results: dict[str, Any] = {}
    counts = train_store.unigram_counts(len(tokenizer))
    with stage("Counting trigrams", len(train_store.tokens), "tokens") as progress:
        trigram = Trigram(train_store.tokens, vocab_size=len(counts), eos_token_id=train_store.eos_token_id)
        progress.update(len(train_store.tokens))
    masked = is_masked(type(model).__name__)
    for name, (store, texts) in splits.items():
        documents = [store.document(index) for index in range(len(store))]
        settings: Any = {"block_size": block_size, "description": f"Scoring {name}"}
        if masked:
            nll, scored = pseudo_nll(model, tokenizer, texts["text"], limit=SCORED_TOKENS, **settings)
        else:
            nll = document_nll(model, documents, eos_token_id=store.eos_token_id, **settings)
        figures = score_documents(
            texts=texts["text"],
            sources=texts["source"],
            works=texts["work"],
            nll=nll,
            tokens=[len(tokens) for tokens in documents],
            unigram_nll=unigram_nll(counts, documents),
            trigram_nll=trigram.document_nll(documents),
        )
        results[name] = pseudo_figures(figures, scored=int(scored.sum())) if masked else figures
    results["minimal_pairs"] = {}
    for task in tasks:
        pairs = load_pairs(TASKS[task])
        floor = accuracies(pairs, trigram.document_nll(encode_pairs(tokenizer, pairs, block_size=block_size)))
        scores = score_pairs(model, tokenizer, pairs, block_size=block_size)
        results["minimal_pairs"][task] = {**scores, "trigram": floor}
    return results


def check_tasks(tokenizer: "PreTrainedTokenizerFast", tasks: Sequence[str], *, block_size: int) -> None:
    """Raise UserError for a task that a model of `block_size` cannot do, before it is trained."""
    from hindi_babylm.evaluation.minimal_pairs import encode_pairs, load_pairs

    for task in tasks:
        encode_pairs(tokenizer, load_pairs(TASKS[task]), block_size=block_size)


def task_texts(task: str) -> list[str]:
    """Return the sentences of a task, which no model that it measures may have been trained on.

    >>> len(task_texts("hindi_pairs_pud"))
    1120
    """
    from hindi_babylm.evaluation.minimal_pairs import load_pairs

    return [sentence for pair in load_pairs(TASKS[task]) for sentence in (pair.good, pair.bad)]


def continue_texts(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerFast",
    texts: "Dataset",
    *,
    count: int = 3,
    seed: int = 0,
) -> list[dict[str, str]]:
    """Continue the first words of `count` documents, one a source where there are enough: prompt and continuation.

    Sampled with nucleus 0.9 (Holtzman et al. 2020) under a fixed seed. What comes out: README.md, "What comes out".
    """
    from transformers import set_seed

    first = {source: index for index, source in reversed(list(enumerate(texts["source"])))}
    rows = list(dict.fromkeys([*first.values(), *range(len(texts))]))[:count]
    set_seed(seed)
    continuations = []
    for row in track(rows, "Continuing texts", "texts"):
        prompt = " ".join(texts[row]["text"].split()[:PROMPT_WORDS])
        positions = model.config.max_position_embeddings
        inputs = tokenizer(prompt, add_special_tokens=False, return_tensors="pt").to(model.device)
        # A prompt of long words may fill a short context: its end is what the continuation hangs on.
        inputs = {name: ids[:, -max(1, positions // 2) :] for name, ids in inputs.items()}
        room = positions - inputs["input_ids"].shape[1]
        generate: Any = model.generate
        ids = generate(
            **inputs,
            max_new_tokens=min(CONTINUATION_TOKENS, room),
            do_sample=True,
            top_p=0.9,
            pad_token_id=tokenizer.pad_token_id,
        )[0]
        text = str(tokenizer.decode(ids[inputs["input_ids"].shape[1] :], skip_special_tokens=True))
        continuations.append({"prompt": prompt, "continuation": text})
    return continuations


# Name -> TSV of minimal pairs with the columns phenomenon, sen and wrong_sen.
TASKS: dict[str, Path] = {
    "hindi_pairs_pud": Path(__file__).parent.parent / "data" / "pairs" / "hindi_pairs_pud.tsv",
}
