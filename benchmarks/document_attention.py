"""What does attention inside of documents cost? Training steps with and without, in turn, in one process.

Run `python -m benchmarks.document_attention`; a row is a block length, with the median step of each and their ratio.
"""

import statistics
import time
from typing import Any

STEPS, WARMUP, ROWS, VOCABULARY, EOS, DOCUMENT = 15, 3, 8, 8192, 1, 100


def measure(block_size: int) -> tuple[float, float]:
    """Return the median seconds of a step of the quickstart's model, bf16, plain and with documents apart."""
    import numpy as np
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from hindi_babylm.packing import document_positions

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=block_size,
        tie_word_embeddings=True,
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model: Any = LlamaForCausalLM(config)
    model.to(device)
    optimizer = torch.optim.AdamW(model.parameters())
    draw = np.random.default_rng(0)
    ids = draw.integers(EOS + 1, VOCABULARY, (ROWS, block_size))
    ids[draw.random(ids.shape) < 1 / DOCUMENT] = EOS
    rows = torch.from_numpy(ids).to(device)
    positions = torch.from_numpy(np.stack([document_positions(row, EOS) for row in ids])).to(device)
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(STEPS):
        for taken, given in zip(seconds, (None, positions), strict=True):
            start = time.perf_counter()
            with torch.autocast(device, dtype=torch.bfloat16):
                loss = model(input_ids=rows, labels=rows, position_ids=given, use_cache=False).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if device == "cuda":
                torch.cuda.synchronize()
            taken.append(time.perf_counter() - start)
    plain, apart = (statistics.median(taken[WARMUP:]) for taken in seconds)
    return plain, apart


def main() -> None:
    """Print the table."""
    for block_size in (256, 512, 1024):
        plain, apart = measure(block_size)
        print(f"{block_size} tokens: plain {plain:.3f} s, documents apart {apart:.3f} s, ratio {apart / plain:.2f}")


if __name__ == "__main__":
    main()
