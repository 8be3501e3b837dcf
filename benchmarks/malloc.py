"""Does keeping freed memory speed up training on a CPU? Steps with and without, in turn, each in a fresh process.

Run `python -m benchmarks.malloc`; a row is the median step of a process, the last line the ratio of the medians.
"""

import statistics
import subprocess
import sys
import time

STEPS, WARMUP, PAIRS = 15, 3, 5


def measure(keep: bool) -> float:
    """Return the median seconds of a training step of the quickstart's model, bf16, 8 blocks of 256 tokens."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from hindi_babylm.training.machine import keep_freed_memory

    if keep:
        keep_freed_memory()
    config = LlamaConfig(
        vocab_size=8192,
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=256,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters())
    ids = torch.randint(0, 8192, (8, 256))
    seconds = []
    for _ in range(STEPS):
        start = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(input_ids=ids, labels=ids).loss
        assert loss is not None
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[WARMUP:])


def main() -> None:
    """Print the table, or one measurement when called with `keep` or `stock`."""
    if len(sys.argv) > 1:
        print(measure(sys.argv[1] == "keep"))
        return
    times: dict[str, list[float]] = {"stock": [], "keep": []}
    for pair in range(PAIRS):
        for name, values in times.items():
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.malloc", name], capture_output=True, text=True, check=True
            )
            values.append(float(done.stdout))
        print(f"pair {pair + 1}: stock {times['stock'][-1]:.3f} s, keep {times['keep'][-1]:.3f} s")
    stock, keep = (statistics.median(values) for values in times.values())
    print(f"median: stock {stock:.3f} s, keep {keep:.3f} s, ratio {stock / keep:.2f}")


if __name__ == "__main__":
    main()
