"""How much faster are minimal pairs in batches than one at a time, and are the scores equal?

Run `python -m benchmarks.minimal_pairs`: the bundled suite under models with random weights, one sentence at a time as
a plain loop would have it, and as the evaluation does it, in turn, on all cores (OMP_NUM_THREADS=1 for one). Medians of
five rounds, in seconds of the clock, or with one thread in those that the process computed,
which other work on the machine disturbs less.
"""

import statistics
import time
from typing import Any

import numpy as np
import torch
from torch.nn import functional

ROUNDS, VOCABULARY, BLOCK = 5, 8192, 256
LLAMA = {"num_hidden_layers": 4, "hidden_size": 256, "intermediate_size": 688, "num_attention_heads": 4}
MODELS: dict[str, tuple[str, dict[str, int]]] = {
    "gpt2, 2 layers of 64": ("gpt2", {"n_layer": 2, "n_embd": 64, "n_head": 2}),
    "llama, 4 layers of 256 (quickstart)": ("llama", LLAMA),
}


def one_at_a_time(scorer: Any, sentences: list[str]) -> np.ndarray:
    """Score sentences by a forward pass each."""
    found = []
    for tokens in scorer.encode(sentences):
        ids = torch.tensor([[scorer.first, *tokens.tolist()]])
        with torch.no_grad():
            logits = scorer.model(ids).logits[0, :-1]
        found.append(functional.cross_entropy(logits, ids[0, 1:], reduction="sum").item())
    return np.asarray(found)


def main() -> None:
    """Print a row a model."""
    from hindi_babylm.evaluation.minimal_pairs import load_pairs, pair_texts
    from hindi_babylm.evaluation.scorer import Scorer
    from hindi_babylm.evaluation.tasks import TASKS
    from hindi_babylm.modeling import build_model
    from hindi_babylm.tokenization.training import train_tokenizer
    from hindi_babylm.training.machine import keep_freed_memory

    keep_freed_memory()
    threads = torch.get_num_threads()
    clock = time.process_time if threads == 1 else time.perf_counter
    print(f"{threads} threads", flush=True)
    sentences = pair_texts(load_pairs(TASKS["hindi_pairs_pud"]))
    tokenizer = train_tokenizer(sentences, vocab_size=VOCABULARY)
    for name, (architecture, size) in MODELS.items():
        model = build_model(architecture=architecture, tokenizer=tokenizer, block_size=BLOCK, model_config=size).eval()
        scorer = Scorer.of(model, tokenizer, block_size=BLOCK)
        ways: dict[str, Any] = {
            "one": lambda scorer=scorer: one_at_a_time(scorer, sentences),
            "batched": lambda scorer=scorer: scorer.nll(sentences, "Batches")[0],
        }
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        scores: dict[str, np.ndarray] = {}
        for _ in range(ROUNDS):
            for way, score in ways.items():
                start = clock()
                scores[way] = score()
                seconds[way].append(clock() - start)
        medians = {way: statistics.median(values) for way, values in seconds.items()}
        ratios = [one / batched for one, batched in zip(seconds["one"], seconds["batched"], strict=True)]
        apart = np.abs(scores["batched"] / scores["one"] - 1).max()
        print(
            f"| {name} | {medians['one']:.2f} | {medians['batched']:.2f} | "
            f"{statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f}) | {apart:.0e} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
