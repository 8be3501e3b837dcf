"""Publishing: exactly the allowed files, nothing of the machine, once, and the same wherever it was interrupted."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hindi_babylm.commands.publish import main as publish_main
from hindi_babylm.packing import read_documents
from hindi_babylm.reporting import publish as module
from hindi_babylm.reporting.publish import publish
from hindi_babylm.run import main
from hindi_babylm.storage import RunFolder, UserError, read_json, write_json
from tests.fake_hub import READ_TOKEN, TOKEN, FakeHub, Request, reached, running, surroundings
from tests.runs import ROOT, command, environment

NAME = "someone/tiny"
MODEL = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
RUN = {*MODEL, "README.md", "results.json"}
WANDB_KEY = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let huggingface_hub repeat what failed without waiting."""
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out that what was published is opened from the hub."""
    monkeypatch.setattr(module, "_compare", lambda *args, **kwargs: None)


def contents(hub: FakeHub) -> dict[str, set[str]]:
    """Return the names of the files of each branch."""
    return {branch: set(hub.files(NAME, branch)) for branch in hub.repositories[NAME].branches}


def test_exactly_the_allowed_files_are_published(folder: RunFolder, hub: FakeHub) -> None:
    """Model, tokenizer, card and results go to main, models alone to their branches, and the repository is private."""
    for place in (folder.final_model, folder.revisions / "chck_300", folder.path):
        for name in (
            "training_args.bin",
            "optimizer.pt",
            "pytorch_model.bin",
            "model.pkl",
            "token",
            ".env",
            "notes.json",
        ):
            (place / name).write_text("PLANTED", encoding="utf-8")
    (folder.final_model / "deeper").mkdir()
    shutil.copy(folder.final_model / "config.json", folder.final_model / "deeper")
    address = publish(folder, hub_model_id=NAME, revisions=True)
    assert address == f"{hub.address}/{NAME}"
    assert contents(hub) == {"main": RUN, "chck_300": MODEL, "chck_600": MODEL}
    assert hub.repositories[NAME].private
    assert b"PLANTED" not in hub.sent()
    assert hub.files(NAME)["README.md"] == folder.card.read_bytes()
    for branch, source in {"main": folder.final_model, "chck_600": folder.revisions / "chck_600"}.items():
        assert hub.files(NAME, branch)["model.safetensors"] == (source / "model.safetensors").read_bytes()
    published = json.loads(hub.files(NAME)["results.json"])
    assert len(published.pop("recipe_sha256")) == 64
    own = read_json(folder.results)
    own.pop("continuations")
    assert published == own


def test_no_text_of_the_corpus_is_published(folder: RunFolder, hub: FakeHub, unread: None) -> None:
    """The continuations begin with words of test documents: neither they nor any document is in what was sent."""
    samples = read_json(folder.results)["continuations"]
    documents = [text for split in ("validation", "test") for text in read_documents(folder.tokens / split)["text"]]
    assert len(samples) == 3
    assert all(any(text.startswith(sample["prompt"]) for text in documents) for sample in samples)
    publish(folder, hub_model_id=NAME, revisions=True)
    sent = hub.sent().decode("utf-8", errors="replace")
    assert '"bits_per_byte"' in sent  # the results are, readable as they stand
    for words in (*(text for sample in samples for text in sample.values()), *documents):
        assert words.strip() not in sent


def test_without_revisions_there_is_one_branch(folder: RunFolder, hub: FakeHub, unread: None) -> None:
    """Milestones are published when asked for; once they are there, they are kept in step and in the card."""
    publish(folder, hub_model_id=NAME)
    assert contents(hub) == {"main": RUN}
    assert "is a branch" not in hub.files(NAME)["README.md"].decode()
    publish(folder, hub_model_id=NAME, revisions=True)
    before = hub.state()
    publish(folder, hub_model_id=NAME)
    assert hub.state() == before
    assert 'revision="chck_300"' in hub.files(NAME)["README.md"].decode()


def test_publishing_again_makes_no_commit(folder: RunFolder, hub: FakeHub, unread: None) -> None:
    """Where nothing has changed nothing is sent; where one file has, one commit of it is made."""
    publish(folder, hub_model_id=NAME, revisions=True)
    before, commits = hub.state(), hub.commits(NAME)
    hub.requests.clear()
    publish(folder, hub_model_id=NAME, revisions=True)
    assert (hub.state(), hub.commits(NAME)) == (before, commits)
    assert [request.path for request in hub.requests if request.changes and request.status == 200] == []
    config = read_json(folder.final_model / "config.json")
    write_json(folder.final_model / "config.json", {**config, "summary_type": "mean"})
    hub.requests.clear()
    publish(folder, hub_model_id=NAME, revisions=True)
    assert hub.commits(NAME) == {**commits, "main": commits["main"] + 1}
    assert [request.method for request in hub.requests].count("PUT") == 0


def dead_from(number: int) -> Callable[[Request], bool]:
    """Return a condition that is true of the `number`-th request and of all after it."""
    seen = []

    def dies(request: Request) -> bool:
        seen.append(request)
        return len(seen) > number

    return dies


@pytest.mark.parametrize("when", ["dies_before", "dies_after"])
def test_wherever_it_is_cut_off_the_next_call_completes_it(
    when: str, finished: RunFolder, tmp_path: Path, unhurried: None, unread: None
) -> None:
    """Cut off before or after any request, with one line of error, publishing again ends in the same state."""
    with running() as hub, reached(hub, str(tmp_path / "hf")):
        publish(finished, hub_model_id=NAME, revisions=True)
        whole, requests = hub.state(), len(hub.requests)
    assert requests > 15
    for number in range(requests):
        with running() as hub, reached(hub, str(tmp_path / "hf")):
            setattr(hub, when, dead_from(number))
            with pytest.raises(UserError) as caught:
                publish(finished, hub_model_id=NAME, revisions=True)
            assert "\n" not in str(caught.value)
            assert f"hindi-babylm publish {finished.path} --hub_model_id {NAME} --revisions` goes on" in str(
                caught.value
            )
            setattr(hub, when, lambda request: False)
            publish(finished, hub_model_id=NAME, revisions=True)
            assert hub.state() == whole, number


def test_cut_off_while_it_is_opened_it_is_opened_again(folder: RunFolder, hub: FakeHub, unhurried: None) -> None:
    """A failure of the comparison is told; the next call compares, though it has nothing to upload."""
    hub.dies_before = lambda request: "/resolve/" in request.path and request.path.endswith("model.safetensors")
    with pytest.raises(UserError, match=f"{NAME} is not published: "):
        publish(folder, hub_model_id=NAME)
    hub.dies_before = lambda request: False
    hub.requests.clear()
    publish(folder, hub_model_id=NAME)
    assert any(request.path.endswith("model.safetensors") for request in hub.requests)
    assert not any(request.changes and request.status == 200 for request in hub.requests)


def test_finished_branches_are_not_done_again(folder: RunFolder, hub: FakeHub, unhurried: None, unread: None) -> None:
    """After a stop at the second milestone, only it is uploaded; what an upload has brought is not sent twice."""
    hub.dies_before = lambda request: request.path.endswith("/commit/chck_600")
    with pytest.raises(UserError):
        publish(folder, hub_model_id=NAME, revisions=True)
    hub.dies_before = lambda request: False
    hub.requests.clear()
    publish(folder, hub_model_id=NAME, revisions=True)
    changes = [request.path for request in hub.requests if request.changes and request.status == 200]
    assert changes == [f"/api/models/{NAME}/commit/chck_600"]


def test_what_is_published_opens_by_name(folder: RunFolder, hub: FakeHub, tmp_path: Path) -> None:
    """A stranger's process opens main and each revision by name, with the ids and logits of the run's folders."""
    publish(folder, hub_model_id=NAME, revisions=True)
    code = (
        "import sys, torch\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "for revision, folder in zip(sys.argv[1::2], sys.argv[2::2]):\n"
        f"    there = AutoModelForCausalLM.from_pretrained('{NAME}', revision=revision)\n"
        f"    ids = AutoTokenizer.from_pretrained('{NAME}', revision=revision)('राम घर गया', return_tensors='pt')\n"
        "    here = AutoModelForCausalLM.from_pretrained(folder)\n"
        "    own = AutoTokenizer.from_pretrained(folder)('राम घर गया', return_tensors='pt')\n"
        "    assert torch.equal(ids['input_ids'], own['input_ids'])\n"
        "    assert torch.equal(there(**ids).logits, here(**own).logits)\n"
        "    print(revision, float(there(**ids).logits.sum()))\n"
    )
    pairs = [("main", folder.final_model), *((name, folder.revisions / name) for name in ("chck_300", "chck_600"))]
    words = [sys.executable, "-c", code, *(str(word) for pair in pairs for word in pair)]
    own = environment(**surroundings(hub, str(tmp_path / "stranger")))
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=own, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["main", "chck_300", "chck_600"]
    assert len({line.split()[1] for line in lines}) == 3


@pytest.mark.parametrize(("file", "differ"), [("model.safetensors", "logits"), ("tokenizer.json", "tokens")])
def test_what_comes_back_otherwise_is_told(file: str, differ: str, folder: RunFolder, hub: FakeHub) -> None:
    """A weight or a token that is another one after the upload ends publishing with an error."""

    def corrupt(path: str, content: bytes) -> bytes:
        if path != file:
            return content
        if file == "model.safetensors":
            return content[:-1000] + torch.full((250,), 0.5).numpy().tobytes()
        vocabulary = json.loads(content)
        tokens = vocabulary["model"]["vocab"]
        first, second = (next(token for token in tokens if sign in token) for sign in ("म", "घ"))
        tokens[first], tokens[second] = tokens[second], tokens[first]
        return json.dumps(vocabulary, ensure_ascii=False).encode()

    hub.corrupt = corrupt
    with pytest.raises(UserError, match=rf"opened from the hub it is not .*: its {differ} differ"):
        publish(folder, hub_model_id=NAME)


def test_public_only_when_told(
    folder: RunFolder, hub: FakeHub, unread: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """A repository is public when asked for; one that is public is not filled unasked; neither is ever switched."""
    publish(folder, hub_model_id=NAME, private=False)
    assert not hub.repositories[NAME].private
    before = hub.state()
    with pytest.raises(UserError, match=f"{NAME} is public: give --public"):
        publish(folder, hub_model_id=NAME)
    assert hub.state() == before
    publish(folder, hub_model_id="someone/other")
    publish(folder, hub_model_id="someone/other", private=False)
    assert hub.repositories["someone/other"].private
    assert "someone/other is private and stays so" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"README.md": b"mine", "pytorch_model.bin": b"x"}, "something else than a run (on main: README.md, pytorch"),
        (
            {"results.json": b'{"recipe_sha256": "0"}', "old.bin": b"x"},
            "a run of another recipe (on main: old.bin, res",
        ),
        ({"results.json": b"[]"}, "a run of another recipe"),
        ({"results.json": b"no JSON"}, "a run of another recipe"),
    ],
)
def test_what_holds_something_else_is_not_overwritten(
    files: dict[str, bytes], told: str, folder: RunFolder, hub: FakeHub, unread: None
) -> None:
    """A repository of other content is refused before anything is sent, and replaced when told so."""
    repository = hub.create(NAME, private=True, files=files)
    repository.branches |= {name: list(repository.branches["main"]) for name in ("chck_9M", "mine")}
    before = hub.state()
    with pytest.raises(UserError) as caught:
        publish(folder, hub_model_id=NAME, revisions=True)
    assert told in str(caught.value)
    assert hub.state() == before
    publish(folder, hub_model_id=NAME, revisions=True, overwrite=True)
    assert contents(hub) == {"main": RUN, "chck_300": MODEL, "chck_600": MODEL, "mine": set(files)}
    publish(folder, hub_model_id=NAME, revisions=True)


def test_another_recipe_is_another_run(folder: RunFolder, hub: FakeHub, unread: None) -> None:
    """The same recipe updates its repository wherever its folder lies; another seed is refused."""
    publish(folder, hub_model_id=NAME)
    recipe = read_json(folder.recipe)
    recipe["training"] |= {"output_dir": "elsewhere", "log_level": "debug"}
    recipe["reporting"]["push_to_hub"] = True
    write_json(folder.recipe, recipe)
    publish(folder, hub_model_id=NAME)
    recipe["training"]["seed"] = 5
    write_json(folder.recipe, recipe)
    with pytest.raises(UserError, match="holds a run of another recipe"):
        publish(folder, hub_model_id=NAME)
    # Beside it there is room: on a branch of its own.
    publish(folder, hub_model_id=NAME, branch="seed-5")
    publish(folder, hub_model_id=NAME, branch="seed-5")
    assert contents(hub) == {"main": RUN, "seed-5": RUN}
    assert hub.commits(NAME)["seed-5"] == 2  # the copy of main, and its own
    assert hub.files(NAME)["results.json"] != hub.files(NAME, "seed-5")["results.json"]


def test_a_branch_of_ones_own_is_completed_after_a_stop(
    folder: RunFolder, hub: FakeHub, unhurried: None, unread: None
) -> None:
    """A branch that was made, and cut off before its commit, is no other run, and keeps nothing of main's."""
    hub.create(NAME, private=True, files={"README.md": b"mine", "old.bin": b"x"})
    hub.dies_before = lambda request: request.path.endswith("/commit/seed-5")
    # The command that goes on is that of this branch, and as public as it was asked for.
    with pytest.raises(
        UserError, match=f"`hindi-babylm publish .* --hub_model_id {NAME} --hub_revision seed-5` goes on"
    ):
        publish(folder, hub_model_id=NAME, branch="seed-5")
    hub.dies_before = lambda request: False
    publish(folder, hub_model_id=NAME, branch="seed-5")
    assert contents(hub) == {"main": {"README.md", "old.bin"}, "seed-5": RUN}


def test_what_others_put_beside_the_model_stays(folder: RunFolder, hub: FakeHub, unread: None) -> None:
    """A licence file that somebody added stays, a shard of weights that the run has no more goes."""
    publish(folder, hub_model_id=NAME)
    more = {name: hub.keep(b"x") for name in ("LICENSE", "model-00001-of-00002.safetensors")}
    hub.commit(hub.repositories[NAME], "main", more)
    publish(folder, hub_model_id=NAME)
    assert contents(hub) == {"main": {*RUN, "LICENSE"}}


def test_a_missing_or_wrong_token_is_told_with_ways_out(folder: RunFolder, tmp_path: Path) -> None:
    """No token, an unknown one, one that may only read, another's name, offline: one line each, without the token."""
    with running() as hub:
        for token, name, told in (
            (
                None,
                NAME,
                "there is no token to publish someone/tiny with: log in with `hf auth login`, or set HF_TOKEN",
            ),
            ("hf_unknown", NAME, "the hub does not know the token: log in"),
            (READ_TOKEN, NAME, "the token may not write there: log in"),
            (TOKEN, "others/tiny", "the token may not write there: log in"),
        ):
            with reached(hub, str(tmp_path / "hf"), token=token), pytest.raises(UserError) as caught:
                publish(folder, hub_model_id=name)
            assert told in str(caught.value)
            assert "hf_" not in str(caught.value)
            assert "\n" not in str(caught.value)
        assert hub.repositories == {}
        requests = len(hub.requests)
        with reached(hub, str(tmp_path / "hf")), pytest.MonkeyPatch.context() as patch:
            patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
            with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
                publish(folder, hub_model_id=NAME)
        assert len(hub.requests) == requests


def test_a_secret_or_a_path_in_a_file_stops_it(
    folder: RunFolder, hub: FakeHub, unread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file with the token, a key of the environment or a folder of the machine is not sent, and the line names it."""
    monkeypatch.setenv("WANDB_API_KEY", WANDB_KEY)
    original = read_json(folder.final_model / "config.json")
    for value, told in (
        (f"x {TOKEN} y", "main: config.json holds "),
        (WANDB_KEY, "main: config.json holds WANDB_API_KEY: "),
        (str(folder.path), f"main: config.json names {folder.path}, a folder of this machine: "),
        (f"{Path.home()}/x", f"main: config.json names {Path.home()}, a folder of this machine: "),
    ):
        write_json(folder.final_model / "config.json", {**original, "note": value})
        with pytest.raises(UserError) as caught:
            publish(folder, hub_model_id=NAME)
        assert told in str(caught.value)
        assert TOKEN not in str(caught.value)
        assert WANDB_KEY not in str(caught.value)
    assert hub.requests == []
    # What transformers notes of the machine is left out.
    write_json(folder.final_model / "config.json", {**original, "_name_or_path": str(folder.path)})
    publish(folder, hub_model_id=NAME)
    sent = hub.sent()
    for hidden in (TOKEN, WANDB_KEY, str(folder.path), str(Path.home()), str(ROOT), os.environ["HF_HOME"]):
        assert hidden.encode() not in sent
    assert json.loads(hub.files(NAME)["config.json"]) == original
    assert "is_local" not in json.loads(hub.files(NAME)["tokenizer_config.json"])


def test_an_unfinished_run_is_not_published(folder: RunFolder, hub: FakeHub) -> None:
    """A run without results is refused before any request."""
    folder.results.unlink()
    with pytest.raises(UserError, match=r"holds no finished run, results\.json is missing"):
        publish(folder, hub_model_id=NAME)
    assert hub.requests == []


# Words after the folder of the run, and the line that they end with.
WRONG: list[tuple[list[str], str]] = [
    ([], "command line: --hub_model_id is missing, and the run's recipe names none: give owner/name"),
    (["--hub_model_id"], "command line: --hub_model_id: expected one value, got 0"),
    (["--hub_model", "a/b"], "command line: --hub_model: unknown flag; did you mean 'hub_model_id'?"),
    (["--public", "yes"], "command line: --public takes no value, got yes"),
    (
        ["--hub_model_id", "tiny"],
        "command line: --hub_model_id tiny: expected owner/name: yourself or an organization, and the name of the "
        "model",
    ),
    (
        ["--hub_model_id", "a/b", "--hub_revision", "chck_1M"],
        "command line: --hub_revision chck_1M: such names are those of milestones and of the hub: choose another",
    ),
    (
        ["--hub_model_id", "a/b", "--hub_revision", "a b"],
        "command line: --hub_revision a b: expected the name of a branch, of letters, digits and . _ - /",
    ),
    (
        ["--hub_model_id", "a/b", "--hub_revision", "x", "--revisions"],
        "command line: --revisions contradicts --hub_revision x: the branches of milestones belong to the model on "
        "main: leave one of them out",
    ),
]


@pytest.mark.parametrize(("words", "line"), WRONG)
def test_wrong_words_are_told_in_one_line(
    words: list[str], line: str, finished: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong command line ends with exit code 2 and one line."""
    with pytest.raises(SystemExit) as stopped:
        publish_main([str(finished.path), *words])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == f"error: {line}\n"


def test_a_dry_run_sends_and_writes_nothing(
    folder: RunFolder, hub: FakeHub, capsys: pytest.CaptureFixture[str]
) -> None:
    """--dry_run lists each file by branch, without a request and without touching the run."""
    before = {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}
    publish_main([str(folder.path), "--hub_model_id", NAME, "--revisions", "--dry_run"])
    listed = re.findall(r"^(main|chck_\d+) +(\S+) +[\d,]+$", capsys.readouterr().out, re.M)
    assert set(listed) == {("main", name) for name in RUN} | {
        (branch, name) for branch in ("chck_300", "chck_600") for name in MODEL
    }
    assert hub.requests == []
    assert {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()} == before


def test_the_command_takes_the_recipe_of_the_run(
    folder: RunFolder, hub: FakeHub, unread: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without flags `publish` does what the run's own recipe says, and a flag lies over it."""
    recipe = read_json(folder.recipe)
    recipe["reporting"] |= {"hub_model_id": NAME, "hub_private_repo": False, "publish_revisions": True}
    write_json(folder.recipe, recipe)
    publish_main([str(folder.path)])
    assert set(contents(hub)) == {"main", "chck_300", "chck_600"}
    assert not hub.repositories[NAME].private
    elsewhere = [str(folder.path), "--hub_model_id", "someone/other", "--hub_revision", "second"]
    publish_main(elsewhere)
    assert set(hub.repositories) == {NAME, "someone/other"}
    assert set(hub.repositories["someone/other"].branches) == {"main", "second"}
    capsys.readouterr()
    publish_main([*elsewhere, "--dry_run"])
    assert set(re.findall(r"^(\S+) +\S+ +[\d,]+$", capsys.readouterr().out, re.M)) == {"second"}


def push(hub: FakeHub, recipe: Path, *flags: str, **extra: str) -> "subprocess.CompletedProcess[str]":
    """Run the real command of a recipe with --push_to_hub."""
    words = [*command(recipe), "--push_to_hub", "--hub_model_id", NAME, *flags]
    own = environment(**surroundings(hub, str(recipe.parent / "hf")), **extra)
    return subprocess.run(words, capture_output=True, text=True, check=False, env=own, cwd=recipe.parent)


def test_a_run_is_published_once_at_its_end(write_recipe: Callable[..., Path], tmp_path: Path) -> None:
    """The real command sends its first request when the results are written, and no secret stands in any file of it."""
    recipe = write_recipe(milestones=[300], report_to=["wandb"])
    with running() as hub:
        done = push(hub, recipe, "--publish_revisions", WANDB_MODE="offline", WANDB_API_KEY=WANDB_KEY)
        assert done.returncode == 0, done.stdout + done.stderr
        folder = RunFolder(tmp_path / "run")
        assert contents(hub) == {"main": RUN, "chck_300": MODEL}
        assert hub.commits(NAME) == {"main": 2, "chck_300": 2}
        assert min(request.time for request in hub.requests) > folder.results.stat().st_mtime
        assert f"Published: {hub.address}/{NAME}" in done.stdout
        sent = hub.sent()
        for hidden in (TOKEN, WANDB_KEY, str(tmp_path), str(Path.home()), str(ROOT)):
            assert hidden.encode() not in sent
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in written)
    for path in written:
        data = path.read_bytes()
        assert TOKEN.encode() not in data, path
        assert WANDB_KEY.encode() not in data, path


def test_a_failed_push_costs_nothing_and_the_same_command_goes_on(
    write_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    """When the hub refuses at the end, the results are there, one line says so, and the same command goes on."""
    recipe = write_recipe()
    with running() as hub:
        hub.owners = ()
        done = push(hub, recipe)
        assert done.returncode == 2
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert line.startswith(f"error: {NAME} is not published: the token may not write there")
        assert (tmp_path / "run" / "results.json").exists()
        assert "test bits per byte" in done.stdout
        before = (tmp_path / "run" / "results.json").read_bytes()
        hub.owners = ("someone",)
        done = push(hub, recipe)
        assert done.returncode == 0, done.stderr
        assert contents(hub) == {"main": RUN}
    assert (tmp_path / "run" / "results.json").read_bytes() == before


def test_without_a_token_nothing_is_trained(
    write_recipe: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A recipe that asks for publishing is refused at once where there is no token, and writes nothing."""
    recipe = write_recipe()
    with running() as hub, reached(hub, str(tmp_path / "hf"), token=None), pytest.raises(SystemExit) as stopped:
        main([str(recipe), "--push_to_hub", "--hub_model_id", NAME])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: there is no token to publish {NAME} with: log in")
    assert not (tmp_path / "run").exists()
    assert hub.requests == []


@pytest.mark.slow
def test_two_processes_publish_once(write_recipe: Callable[..., Path]) -> None:
    """On two processes the main one alone publishes."""
    recipe = write_recipe(reporting={"push_to_hub": True, "hub_model_id": NAME}, per_device_train_batch_size=4)
    content = read_json(recipe)
    content["reporting"] = content["training"].pop("reporting")
    write_json(recipe, content)
    with running() as hub:
        own = environment(**surroundings(hub, str(recipe.parent / "hf")))
        words = command(recipe, processes=2)
        done = subprocess.run(words, capture_output=True, text=True, check=False, env=own, cwd=recipe.parent)
        assert done.returncode == 0, done.stderr
        assert hub.commits(NAME) == {"main": 2}
        assert [request.path for request in hub.requests].count("/api/repos/create") == 1


def test_the_stock_push_stays_off(tmp_path: Path) -> None:
    """The arguments of transformers never ask for a push, and refuse one in Python."""
    from hindi_babylm.recipe.parsing import parse_recipe
    from hindi_babylm.training.arguments import HindiTrainingArguments

    (tmp_path / "r.json").write_text('{"reporting": {"push_to_hub": true, "hub_model_id": "a/b"}}', encoding="utf-8")
    arguments: Any = parse_recipe(tmp_path / "r.json").training_arguments()
    assert not arguments.push_to_hub
    assert arguments.hub_model_id is None
    with pytest.raises(ValueError, match="push_to_hub: a finished run is published by"):
        HindiTrainingArguments(output_dir=str(tmp_path), push_to_hub=True)
