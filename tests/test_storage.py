import errno
import hashlib
import json
import os
import stat
from pathlib import Path

import pytest

from hindi_babylm.storage import (
    RunFolder,
    UserError,
    exit_on_user_error,
    is_out_of_memory,
    read_json,
    replace_folder,
    sha256,
    write_atomically,
    write_json,
)

WRITTEN_FOLDERS = ("tokenizer", "tokens", "checkpoints", "final_model")
WRITTEN_FILES = ("recipe", "environment", "corpus", "metrics", "results")


def fail_half_way(path: Path, error: type[BaseException] = RuntimeError, leftovers: list[Path] | None = None) -> None:
    """Write half a file and raise `error`."""
    path.write_text("half")
    if leftovers is not None:
        leftovers.append(path)
    raise error


def test_write_replaces_the_file_when_the_block_ends(tmp_path: Path) -> None:
    """The old content stands until the block ends, then the new one, and nothing else lies in the folder."""
    target = tmp_path / "deep" / "file.txt"
    target.parent.mkdir()
    target.write_text("old")
    with write_atomically(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
        assert temporary.parent == target.parent  # a rename across file systems would not be atomic
    assert target.read_text() == "new"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_write_leaves_the_old_file_on_an_error(tmp_path: Path, error: type[BaseException]) -> None:
    """An error or an interrupt in the block leaves the old file and no temporary one."""
    target = tmp_path / "file.txt"
    target.write_text("old")
    with pytest.raises(error), write_atomically(target) as temporary:
        fail_half_way(temporary, error)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_write_leaves_no_file_on_an_error(tmp_path: Path) -> None:
    """A file that was not there is not there after an error either."""
    with pytest.raises(RuntimeError), write_atomically(tmp_path / "file.txt"):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_write_makes_folders_and_respects_the_umask(tmp_path: Path) -> None:
    """Missing parents are made, and the file is as readable as the umask allows rather than private."""
    target = tmp_path / "a" / "b" / "file.txt"
    before = os.umask(0o027)
    try:
        with write_atomically(target) as temporary:
            temporary.write_text("x")
    finally:
        os.umask(before)
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_write_synchronises_file_and_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is flushed to the disk before the rename, and its folder after it."""
    order: list[str] = []
    fsync, replace = os.fsync, os.replace

    def recorded_fsync(descriptor: int) -> None:
        order.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def recorded_replace(source: Path, target: Path) -> None:
        order.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "replace", recorded_replace)
    with write_atomically(tmp_path / "file.txt") as temporary:
        temporary.write_text("x")
    assert order == ["file", "rename", "folder"]


def test_replace_folder_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    """The new folder replaces the old one whole: files of the old one are gone."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "old.bin").write_text("old")
    with replace_folder(folder) as temporary:
        (temporary / "new.bin").write_text("new")
        assert (folder / "old.bin").exists()
    assert [path.name for path in folder.iterdir()] == ["new.bin"]
    assert list(tmp_path.iterdir()) == [folder]


def test_replace_folder_leaves_the_old_one_on_an_error(tmp_path: Path) -> None:
    """An error in the block leaves the old folder whole and no temporary one."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "old.bin").write_text("old")
    with pytest.raises(RuntimeError), replace_folder(folder) as temporary:
        fail_half_way(temporary / "half.bin")
    assert [path.name for path in folder.iterdir()] == ["old.bin"]
    assert list(tmp_path.iterdir()) == [folder]


def test_replace_folder_ignores_the_rest_of_a_killed_run(tmp_path: Path) -> None:
    """A temporary folder that a killed process left does not get into the new folder."""
    folder = tmp_path / "model"
    leftovers: list[Path] = []
    with pytest.raises(RuntimeError), replace_folder(folder) as temporary:
        fail_half_way(temporary / "half.bin", leftovers=leftovers)
    leftovers[0].parent.mkdir()
    leftovers[0].write_text("half")
    with replace_folder(folder) as temporary:
        (temporary / "new.bin").write_text("new")
    assert [path.name for path in folder.iterdir()] == ["new.bin"]
    assert list(tmp_path.iterdir()) == [folder]


def test_sha256_is_that_of_the_bytes(tmp_path: Path) -> None:
    """The checksum equals hashlib's over the bytes of the file."""
    path = tmp_path / "file.bin"
    path.write_bytes(bytes(range(256)) * 100)
    assert sha256(path) == hashlib.sha256(bytes(range(256)) * 100).hexdigest()


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9.05 GB)"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: 5 bytes"),
    ],
)
def test_missing_memory_is_known_by_each_allocator(error: Exception) -> None:
    """Python, the system, CUDA, cuBLAS, Apple's GPU and the CPU's allocator each have words of their own for it."""
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error", [RuntimeError("CUDA error: device-side assert triggered"), OSError(2, "No such file")]
)
def test_other_errors_are_not_missing_memory(error: Exception) -> None:
    """What is not about memory is not taken for it."""
    assert not is_out_of_memory(error)


def test_json_round_trip_is_readable_utf8(tmp_path: Path) -> None:
    """JSON comes back equal and stands in the file as UTF-8 Devanagari, one key a line, newline at the end."""
    path = tmp_path / "file.json"
    value = {"शब्द": [1, 2.5, None, True], "text": "हिंदी"}
    write_json(path, value)
    assert read_json(path) == value
    text = path.read_bytes().decode("utf-8")
    assert '"शब्द"' in text
    assert text.endswith("}\n")
    assert json.loads(text) == value


def test_json_refuses_nan_and_keeps_the_old_file(tmp_path: Path) -> None:
    """NaN is no JSON: it is refused before the old file is touched."""
    path = tmp_path / "file.json"
    write_json(path, {"loss": 1.0})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"loss": float("nan")})
    assert read_json(path) == {"loss": 1.0}
    assert list(tmp_path.iterdir()) == [path]


def test_user_error_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    """A user error ends with exit code 2 and its one line on stderr, nothing on stdout and no traceback."""
    with pytest.raises(SystemExit) as stopped, exit_on_user_error():
        raise UserError("corpus: 'x' is missing; make it")
    captured = capsys.readouterr()
    assert stopped.value.code == 2
    assert captured.err == "error: corpus: 'x' is missing; make it\n"
    assert captured.out == ""


def test_other_errors_pass_through() -> None:
    """An error that is not the user's keeps its type and traceback."""
    with pytest.raises(KeyError), exit_on_user_error():
        raise KeyError("bug")


def test_run_folder_names_are_those_of_the_documentation() -> None:
    """The paths of a run are named as the documentation names them."""
    folder = RunFolder(Path("runs/base"))
    names = {name: str(getattr(folder, name).relative_to(folder.path)) for name in WRITTEN_FOLDERS + WRITTEN_FILES}
    assert names == {
        "tokenizer": "tokenizer",
        "tokens": "tokens",
        "checkpoints": "checkpoints",
        "final_model": "final_model",
        "recipe": "recipe.json",
        "environment": "environment.json",
        "corpus": "corpus.json",
        "metrics": "metrics.jsonl",
        "results": "results.json",
    }


def test_clear_deletes_what_a_run_writes_and_nothing_else(tmp_path: Path) -> None:
    """Clearing deletes the files of a run and leaves foreign files and folders alone."""
    folder = RunFolder(tmp_path)
    for name in WRITTEN_FOLDERS:
        path: Path = getattr(folder, name)
        (path / "deep").mkdir(parents=True)
        (path / "deep" / "file").write_text("x")
    for name in WRITTEN_FILES:
        getattr(folder, name).write_text("{}")
    (tmp_path / "notes.md").write_text("mine")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "corpus.txt").write_text("mine")
    folder.clear()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "notes.md"]
    assert (tmp_path / "data" / "corpus.txt").read_text() == "mine"


def test_clear_of_an_empty_or_missing_folder_is_nothing(tmp_path: Path) -> None:
    """Clearing a folder without a run does nothing."""
    RunFolder(tmp_path).clear()
    RunFolder(tmp_path / "missing").clear()
    assert list(tmp_path.iterdir()) == []
