"""How fast does text become a token store, and how does the memory grow with the corpus? Two cores, no GPU.

Run `python -m benchmarks.corpus [--path FOLDER_OR_GLOB] [--copies 1 4 20] [--workers N]`. Each size is a process of
its own over N copies of the source (default: the bundled corpus), told apart by a word at the head of each document, so
that no copy is a duplicate; with `--short 20000 200000` over so many documents of 13 words, which shows what a document
adds to the memory beside its text. Reading, hygiene and exact de-duplication are one figure, encoding with a tokenizer
of 16,000 tokens another, training that tokenizer is left out of both. Memory is the anonymous memory of the main
process at its highest (Linux): pages of files that are mapped into memory are not counted.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

VOCABULARY = 16_000


def anonymous_memory() -> int:
    """Return the anonymous memory of this process in bytes."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(status.partition("RssAnon:")[2].split()[0])


class Peak(threading.Thread):
    """The highest anonymous memory since its start, looked at a hundred times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.before = self.value = anonymous_memory()
        self.start()

    def run(self) -> None:
        """Look until the process ends."""
        while True:
            self.value = max(self.value, anonymous_memory())
            time.sleep(0.01)


def write_copies(source: dict[str, Any], copies: int, folder: Path) -> int:
    """Write so many copies of a source as JSON lines, and return the documents of one."""
    from hindi_babylm.corpus.sources import load_source

    documents, _ = load_source(source, hygiene=[])
    for copy in range(copies):
        with open(folder / f"{copy}.jsonl", "w", encoding="utf-8") as file:
            for number, text in enumerate(documents["text"]):
                row = {"text": f"प्रति{copy} {text}", "id": f"{copy}-{number}"}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return len(documents)


def write_short(count: int, folder: Path) -> None:
    """Write so many different documents of 13 words, whose text is nearly no part of the memory."""
    words = ["राम", "सीता", "घर", "नदी", "पानी", "राजा", "रानी", "कहानी", "बच्चा", "पेड़", "फूल", "गाँव"]
    with open(folder / "short.jsonl", "w", encoding="utf-8") as file:
        for number in range(count):
            text = " ".join([*words, str(number)])
            file.write(json.dumps({"text": text, "id": str(number)}, ensure_ascii=False) + "\n")


def measure(folder: Path, workers: int | None) -> dict[str, float]:
    """Build the corpus of a folder once and encode it."""
    import datasets

    from hindi_babylm.console import set_level
    from hindi_babylm.corpus.assembly import build_corpus
    from hindi_babylm.packing import TokenStore
    from hindi_babylm.tokenization.training import train_tokenizer

    set_level("error")
    with tempfile.TemporaryDirectory() as own:
        datasets.config.HF_DATASETS_CACHE = Path(own)
        datasets.disable_progress_bars()
        peak, started = Peak(), time.perf_counter()
        splits, ledger = build_corpus(sources=[{"path": str(folder)}], workers=workers, decontaminate=False)
        built, memory = time.perf_counter(), peak.value - peak.before
        tokenizer = train_tokenizer(splits["test"]["text"], vocab_size=VOCABULARY)
        trained = time.perf_counter()
        for split, part in splits.items():
            TokenStore.write(Path(own) / split, texts=part["text"], words=part["words"], tokenizer=tokenizer)
        encoded = time.perf_counter()
    return {
        "documents": ledger.read["documents"],
        "megabytes": ledger.read["bytes"] / 1e6,
        "build": built - started,
        "encode": encoded - trained,
        "memory": memory,
    }


def main() -> None:
    """Print MB/s of text and the memory of each size, and what a document adds to it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--path", help="file, folder or glob in place of the bundled corpus")
    parser.add_argument("--copies", type=int, nargs="+", default=[1, 4, 20])
    parser.add_argument("--short", type=int, nargs="+", help="short documents, so many each, in place of copies")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, arguments.workers)))
        return
    source = {"path": arguments.path} if arguments.path else {"bundled": "all"}
    print(f"{'copies':>7}{'documents':>11}{'MB':>8}{'read+clean':>12}{'encode':>10}{'together':>10}{'memory':>11}")
    rows = []
    for copies in arguments.short or arguments.copies:
        with tempfile.TemporaryDirectory() as folder:
            if arguments.short:
                write_short(copies, Path(folder))
            else:
                write_copies(source, copies, Path(folder))
            workers = ["--workers", str(arguments.workers)] if arguments.workers else []
            command = [sys.executable, "-m", "benchmarks.corpus", "--measure", folder, *workers]
            row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        rows.append(row)
        size, both = row["megabytes"], row["build"] + row["encode"]
        print(
            f"{copies:>7}{row['documents']:>11,.0f}{size:>8.1f}{size / row['build']:>7.1f} MB/s"
            f"{size / row['encode']:>5.1f} MB/s{size / both:>5.1f} MB/s{row['memory'] / 1e6:>8.1f} MB"
        )
    if len(rows) > 1:
        first, last = rows[0], rows[-1]
        growth = (last["memory"] - first["memory"]) / (last["documents"] - first["documents"])
        print(f"memory grows by {growth:.0f} bytes a document")


if __name__ == "__main__":
    main()
