"""A finished run on the hub: model, tokenizer, card and results on a branch, milestones on branches of their own."""

import hashlib
import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hindi_babylm.console import quiet_bars, say, warn
from hindi_babylm.reporting.card import is_masked, model_card, public_results, write_card
from hindi_babylm.reporting.hub import MAIN, check_token, command_of, refusals_told
from hindi_babylm.reporting.privacy import leak, machine_places, secrets
from hindi_babylm.storage import RunFolder, UserError, read_json, sha256, what_counts

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

# The only files that leave a folder with a model. What no name here matches stays: checkpoints, pickles, anything else.
MODEL_FILES = re.compile(
    r"config\.json|generation_config\.json|chat_template\.jinja"
    r"|model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json"
    r"|tokenizer\.json|tokenizer_config\.json|special_tokens_map\.json"
)
KEPT = (".gitattributes",)  # which the hub writes itself
# Fields that transformers writes of the machine on which a folder was saved.
OF_THE_MACHINE = ("_name_or_path", "name_or_path", "is_local", "local_files_only")
PROBE = "एक समय की बात है। राम घर गया और उसने पानी पिया।"

Content = Path | bytes


def publish(
    folder: RunFolder,
    *,
    hub_model_id: str,
    private: bool = True,
    branch: str = MAIN,
    revisions: bool = False,
    overwrite: bool = False,
) -> str:
    """Upload the finished run in `folder` to the hub, open it from there, and return its address.

    What is there already is not uploaded again, so that the same call goes on where one was interrupted, and makes no
    commit when nothing has changed. `private` holds for a repository that is made; a public one is then refused.
    With `revisions` each milestone is put on a branch of its name; branches that are there are kept in step anyway.
    Raises UserError for a repository that holds something else (`overwrite` replaces it), for a file that names a
    folder of this machine or holds a secret, and for what the hub refuses.
    """
    from huggingface_hub import HfApi

    check_finished(folder)
    again = command_of(
        folder, hub_model_id=hub_model_id, private=private, branch=branch, revisions=revisions, overwrite=overwrite
    )
    token = check_token(hub_model_id, later=again)
    known = milestones(folder) if branch == MAIN else {}
    everything = planned(folder, hub_model_id=hub_model_id, branch=branch, revisions=list(known))
    for name, files in everything.items():
        check_private(files, folder, token=token, where=name)
    quiet_bars()
    api = HfApi(token=token, library_name="hindi-babylm")
    with refusals_told(hub_model_id, token, again=again):
        api.create_repo(hub_model_id, private=private, exist_ok=True)
        _check_visibility(api, hub_model_id, private=private)
        heads = {ref.name: ref.target_commit for ref in api.list_repo_refs(hub_model_id).branches}
        # A branch without a commit of its own is a copy of the main one.
        is_copy = branch != MAIN and heads.get(branch, heads[MAIN]) == heads[MAIN]
        if branch not in heads:
            api.create_branch(hub_model_id, branch=branch)
        wanted = [name for name in known if revisions or name in heads]
        if not (overwrite or is_copy):
            _check_same_run(api, hub_model_id, branch, fingerprint(folder))
        # The card of the hub is that of the folder.
        write_card(folder, hub_model_id=hub_model_id, revisions=wanted)
        contents = planned(folder, hub_model_id=hub_model_id, branch=branch, revisions=wanted)
        for name, files in contents.items():
            if name not in (branch, *heads):
                api.create_branch(hub_model_id, branch=name, exist_ok=True)
            _bring_in_step(api, hub_model_id, name, files, exact=overwrite or is_copy or name != branch)
        for name in heads if overwrite and branch == MAIN else ():
            if name.startswith("chck_") and name not in wanted:
                api.delete_branch(hub_model_id, branch=name)
        for name in contents:
            local = folder.final_model if name == branch else known[name]
            _compare(api, hub_model_id, name, local, masked=is_masked(read_json(folder.results)))
    address = f"{api.endpoint}/{hub_model_id}"
    say(f"Published: {address} ({', '.join(contents)})")
    return address


def check_finished(folder: RunFolder) -> None:
    """Raise UserError for a folder that does not hold a finished run."""
    for path in (folder.recipe, folder.results, folder.corpus, folder.environment, folder.final_model / "config.json"):
        if not path.exists():
            raise UserError(
                f"{folder.path} holds no finished run, {path.name} is missing: give the folder of one that has ended, "
                "or continue it with the command that began it"
            )


def planned(
    folder: RunFolder, *, hub_model_id: str, branch: str, revisions: Sequence[str]
) -> dict[str, dict[str, Content]]:
    """Return what `publish` would upload, by branch and name: of the run the card, the results and the model."""
    known = milestones(folder)
    card = model_card(folder, hub_model_id=hub_model_id, revisions=revisions).encode("utf-8")
    results = {**public_results(folder), "recipe_sha256": fingerprint(folder)}
    text = json.dumps(results, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    ours = {"README.md": card, "results.json": text.encode("utf-8"), **model_files(folder.final_model)}
    return {branch: ours} | {name: model_files(known[name]) for name in revisions}


def model_files(folder: Path) -> dict[str, Content]:
    """Return the model and tokenizer in `folder` by their names on the hub, without what they say of this machine."""
    files: dict[str, Content] = {}
    for path in sorted(folder.iterdir()):
        if not path.is_file() or not MODEL_FILES.fullmatch(path.name):
            continue
        files[path.name] = path
        if path.name in ("config.json", "tokenizer_config.json"):
            entries = read_json(path)
            public = {key: value for key, value in entries.items() if key not in OF_THE_MACHINE}
            if public != entries:
                files[path.name] = (json.dumps(public, ensure_ascii=False, indent=2) + "\n").encode("utf-8")
    return files


def milestones(folder: RunFolder) -> dict[str, Path]:
    """Return the folders of the milestones that the results name, by name, in the order of their words."""
    paths = {entry["name"]: folder.revisions / entry["name"] for entry in read_json(folder.results)["milestones"]}
    return {name: path for name, path in paths.items() if (path / "config.json").exists()}


def fingerprint(folder: RunFolder) -> str:
    """Return the SHA-256 of what counts of a run's recipe, by which a repository knows the run that it holds."""
    text = json.dumps(what_counts(read_json(folder.recipe)), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def check_private(files: Mapping[str, Content], folder: RunFolder, *, token: str | None, where: str) -> None:
    """Raise UserError for a file that holds a secret or names a folder of this machine."""
    hidden, places = secrets(token), machine_places(folder.path)
    for name, content in files.items():
        if name.endswith(".safetensors"):
            continue
        text = _read(content).decode("utf-8")
        for value, what in hidden.items():
            if value in text:
                raise UserError(f"{where}: {name} holds {what}: take it out of the recipe and the texts, and run again")
        # A vocabulary may hold any text.
        place = leak(text, places) if name != "tokenizer.json" else None
        if place is not None:
            raise UserError(f"{where}: {name} names {place}, a folder of this machine: take it out, and publish again")


def _check_visibility(api: "HfApi", repository: str, *, private: bool) -> None:
    found = bool(api.model_info(repository).private)
    if private and not found:
        raise UserError(
            f"{repository} is public: give --public (in a recipe: hub_private_repo false), make it private in its "
            "settings, or choose another hub_model_id"
        )
    if found and not private:
        warn(f"{repository} is private and stays so; its settings make it public")


def _check_same_run(api: "HfApi", repository: str, branch: str, own: str) -> None:
    """Raise UserError for a branch that holds anything but an earlier upload of the same recipe."""
    names = {file.path for file in _files(api, repository, branch).values()} - set(KEPT)
    if not names:
        return
    other = "something else than a run"
    if "results.json" in names:
        with tempfile.TemporaryDirectory() as cache:
            path = api.hf_hub_download(repository, "results.json", revision=branch, cache_dir=cache)
            try:
                found = read_json(path)
            except ValueError:  # whoever wrote it, it was not us
                found = None
        if isinstance(found, dict) and found.get("recipe_sha256") == own:
            return
        other = "a run of another recipe"
    shown = ", ".join(sorted(names)[:3]) + (", ..." if len(names) > 3 else "")
    raise UserError(
        f"{repository} holds {other} (on {branch}: {shown}): choose another hub_model_id or hub_revision, or "
        "let `hindi-babylm publish` replace it with --overwrite"
    )


def _bring_in_step(api: "HfApi", repository: str, branch: str, files: Mapping[str, Content], *, exact: bool) -> None:
    """Make a branch hold `files`, in one commit of what differs or in none; with `exact` it holds nothing else."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    there = _files(api, repository, branch)
    operations: list[Any] = [
        CommitOperationAdd(name, content)
        for name, content in files.items()
        if name not in there or not _is_equal(there[name], content)
    ]
    stale = [name for name in there if name not in files and name not in KEPT]
    operations += [CommitOperationDelete(name) for name in stale if exact or MODEL_FILES.fullmatch(name)]
    if operations:
        api.create_commit(repository, operations, commit_message="Publish with hindi-babylm", revision=branch)


def _files(api: "HfApi", repository: str, branch: str) -> "dict[str, RepoFile]":
    from huggingface_hub.hf_api import RepoFile

    tree = api.list_repo_tree(repository, revision=branch, recursive=True)
    return {file.path: file for file in tree if isinstance(file, RepoFile)}


def _is_equal(there: "RepoFile", content: Content) -> bool:
    """Tell by the hash that the hub keeps of a file: SHA-256 of a large one, git's SHA-1 of any other."""
    if there.lfs is not None:
        own = sha256(content) if isinstance(content, Path) else hashlib.sha256(content).hexdigest()
        return there.lfs.sha256 == own
    data = _read(content)
    return there.blob_id == hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _read(content: Content) -> bytes:
    return content if isinstance(content, bytes) else content.read_bytes()


def _compare(api: "HfApi", repository: str, branch: str, local: Path, *, masked: bool) -> None:
    """Open a branch as anybody would, into a cache of its own, and compare ids and logits with those of `local`."""
    import torch
    import transformers
    from transformers import AutoTokenizer

    auto: Any = transformers.AutoModelForMaskedLM if masked else transformers.AutoModelForCausalLM
    found = []
    with tempfile.TemporaryDirectory() as cache:
        sources: Sequence[tuple[Any, dict[str, Any]]] = (
            (local, {}),
            (repository, {"revision": branch, "cache_dir": cache, "token": api.token}),
        )
        for source, options in sources:
            tokenizer = AutoTokenizer.from_pretrained(source, **options)
            model = auto.from_pretrained(source, dtype=torch.float32, **options).eval()
            ids = tokenizer(PROBE, return_tensors="pt").input_ids[:, : model.config.max_position_embeddings]
            with torch.no_grad():
                found.append((ids, model(ids).logits))
    (ids, logits), (other_ids, other_logits) = found
    if not (torch.equal(ids, other_ids) and torch.equal(logits, other_logits)):
        raise UserError(
            f"{repository} ({branch}) was uploaded, but opened from the hub it is not {local}: its "
            f"{'logits' if torch.equal(ids, other_ids) else 'tokens'} differ: publish again with --overwrite"
        )
