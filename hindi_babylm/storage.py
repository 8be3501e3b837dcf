"""Write files atomically, name the files of a run folder, and report user errors."""

import difflib
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class UserError(Exception):
    """An error that the user can mend: one line that says what, where, the value and each way out."""


def suggestion(name: str, known: Iterable[str]) -> str:
    """Say which of the `known` names is nearest to `name`, or name them all.

    >>> suggestion("lama", ["gpt2", "llama"])
    "did you mean 'llama'?"
    >>> suggestion("x", ["gpt2", "llama"])
    'there are gpt2, llama'
    """
    names = list(known)
    close = difflib.get_close_matches(name, names, 1) or [full for full in names if name and full.startswith(name)]
    return f"did you mean {close[0]!r}?" if close else f"there are {', '.join(names)}"


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or nothing where it has none.

    >>> first_line(ValueError("\\nno such tensor\\nat line 5"))
    'no such tensor'
    """
    return (str(error).strip().splitlines() or [""])[0]


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether memory, of the GPU or the CPU, was too small for what raised `error`.

    >>> is_out_of_memory(RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    True
    >>> is_out_of_memory(RuntimeError("shapes differ"))
    False
    """
    # Only Python and CUDA have a type for it; cuBLAS, the CPU's and Apple's allocators raise a RuntimeError of these.
    words = ("out of memory", "can't allocate memory", "Cannot allocate memory", "_ALLOC_FAILED")
    return isinstance(error, MemoryError) or any(word in first_line(error) for word in words)


@contextmanager
def write_atomically(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path that replaces `path` once the block ends, so that `path` is absent or whole.

    The file is flushed to the disk before it takes its final name; on an error nothing is left behind.

    >>> with write_atomically("notes/first.txt") as temporary:
    ...     _ = temporary.write_text("नमस्ते", encoding="utf-8")
    ...     print(Path("notes/first.txt").exists())
    False
    >>> print(Path("notes/first.txt").read_text(encoding="utf-8"))
    नमस्ते
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    temporary = Path(name)
    try:
        os.close(descriptor)
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        # mkstemp makes the file private; a run folder is read by whoever may read its parent.
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    _fsync_folder(target.parent)


@contextmanager
def replace_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that takes the place of `path` once the block ends."""
    temporary = path.with_name(f".{path.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():  # some libraries write files that only their owner may read
                file.chmod(0o666 & ~_umask())
        shutil.rmtree(path, ignore_errors=True)
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value` as indented UTF-8 JSON, atomically."""
    text = json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    with write_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json_lines(path: str | os.PathLike[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object a line in UTF-8, atomically."""
    with write_atomically(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a UTF-8 JSON file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def differing_keys(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Name what differs of the sections of `now`, as `section.key`; see `what_counts`."""
    different, before = [], what_counts(before)
    for section, entries in what_counts(now).items():
        others = before.get(section)
        if isinstance(entries, Mapping) and isinstance(others, Mapping):
            keys = {**others, **entries}.keys()
            different += [f"{section}.{key}" for key in sorted(keys) if others.get(key) != entries.get(key)]
        elif entries != others:
            different.append(section)
    return different


def what_counts(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return a resolved recipe without what makes no other run of it: its folder, what is printed and published.

    >>> what_counts({"training": {"seed": 1, "output_dir": "a"}, "reporting": {"push_to_hub": True}})
    {'training': {'seed': 1}}
    """
    return {
        name: {key: value for key, value in section.items() if key not in ("output_dir", "log_level")}
        if isinstance(section, Mapping)
        else section
        for name, section in recipe.items()
        if name != "reporting"
    }


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _fsync_folder(folder: Path) -> None:
    # A rename is durable only once its folder is; folders cannot be opened on Windows.
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@dataclass(frozen=True)
class RunFolder:
    """The paths of one run.

    >>> folder = RunFolder(Path("runs/base"))
    >>> print(folder.results.as_posix(), folder.state({}))
    runs/base/results.json new
    """

    path: Path

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.json"

    @property
    def environment(self) -> Path:
        return self.path / "environment.json"

    @property
    def corpus(self) -> Path:
        return self.path / "corpus.json"

    @property
    def tokenizer(self) -> Path:
        return self.path / "tokenizer"

    @property
    def tokens(self) -> Path:
        return self.path / "tokens"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def training(self) -> Path:
        return self.path / "training.json"

    @property
    def results(self) -> Path:
        return self.path / "results.json"

    @property
    def items(self) -> Path:
        return self.path / "items"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def revisions(self) -> Path:
        return self.path / "revisions"

    @property
    def final_model(self) -> Path:
        return self.path / "final_model"

    @property
    def card(self) -> Path:
        return self.final_model / "README.md"

    def state(self, recipe: Mapping[str, Any]) -> str:
        """Tell whether the folder is `new`, or holds the `unfinished` or `finished` run of a resolved recipe.

        Raises UserError when it holds a run of another one, or one whose recipe cannot be read.
        """
        if not self.recipe.exists():
            return "new"
        try:
            before = read_json(self.recipe)
            if not isinstance(before, dict):
                raise ValueError("it is no JSON object")
        except (OSError, ValueError) as error:
            raise UserError(
                f"{self.recipe} is not the recipe of a run: {error}: choose another --output_dir, or --overwrite to "
                "start again"
            ) from error
        different = differing_keys(before, recipe)
        if different:
            raise UserError(
                f"{self.path} holds a run of another recipe (it differs in {', '.join(different)}): "
                "choose another --output_dir, or --overwrite to start again"
            )
        return "finished" if self.results.exists() else "unfinished"

    def sweep(self) -> None:
        """Delete the temporary files and folders that a killed run could not."""
        for path in list(self.path.rglob(".*.tmp")):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def clear(self) -> None:
        """Delete what a run writes, and nothing else that lies in the folder."""
        # The files say what is there, so they go first: a kill in between leaves a folder that claims nothing.
        files = (self.recipe, self.results, self.training, self.corpus, self.environment, self.metrics, self.report)
        for path in files:
            path.unlink(missing_ok=True)
        sharded = self.path.glob("checkpoint-*")  # the stock Trainer's, under FSDP or DeepSpeed
        folders = (self.tokenizer, self.tokens, self.checkpoints, self.revisions, self.final_model, self.items)
        for path in (*folders, *sharded):
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Turn a UserError into its one line on stderr and exit code 2."""
    try:
        yield
    except UserError as error:
        if str(error):  # an empty one is told by another process
            sys.stderr.write(f"error: {error}\n")
        raise SystemExit(2) from None
