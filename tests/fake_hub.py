"""A hub of models on 127.0.0.1 that keeps what it is sent and records every request."""

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import yaml  # type: ignore[import-untyped]

TOKEN = "hf_FakeTokenOfTheTestsThatMayWrite"
READ_TOKEN = "hf_FakeTokenOfTheTestsThatMayRead"
GIT_ATTRIBUTES = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"
LARGE = (".safetensors",)  # what the real hub keeps as LFS; everything else is a regular file here


@dataclass
class Request:
    """A request as it came in, and the status that it got."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    time: float
    status: int = 0

    @property
    def changes(self) -> bool:
        """Tell whether the request asks for a change of what the hub holds."""
        return self.method in ("PUT", "DELETE") or bool(
            re.search(r"/(commit|branch)/[^/]+$|/repos/create$", urlsplit(self.path).path)
        )


@dataclass
class Repository:
    """Branches by name, each a list of commits, the newest last: `(oid, {path: SHA-256 of the content})`."""

    private: bool
    branches: dict[str, list[tuple[str, dict[str, str]]]]


@dataclass
class FakeHub:
    """What the hub holds, what it was asked, and when it is to fail."""

    objects: dict[str, bytes] = field(default_factory=dict)
    large: set[str] = field(default_factory=set)
    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    owners: tuple[str, ...] = ("someone",)
    # Called with each request before it is done, and after: True ends the connection without an answer.
    dies_before: Callable[[Request], bool] = lambda request: False
    dies_after: Callable[[Request], bool] = lambda request: False
    corrupt: Callable[[str, bytes], bytes] = lambda path, content: content
    address: str = ""
    lock: threading.RLock = field(default_factory=threading.RLock)

    def keep(self, content: bytes, *, large: bool = False) -> str:
        digest = hashlib.sha256(content).hexdigest()
        self.objects[digest] = content
        if large:
            self.large.add(digest)
        return digest

    def create(self, name: str, *, private: bool, files: Mapping[str, bytes] = {}) -> Repository:
        """Make a repository with the hub's own first commit, and one more where there are files."""
        repository = Repository(private, {"main": []})
        self.repositories[name] = repository
        self.commit(repository, "main", {".gitattributes": self.keep(GIT_ATTRIBUTES)})
        if files:
            self.commit(repository, "main", {path: self.keep(content) for path, content in files.items()})
        return repository

    def commit(self, repository: Repository, branch: str, files: Mapping[str, str | None]) -> str:
        """Add a commit to a branch: a path with the digest of its new content, or with None to delete it."""
        history = repository.branches[branch]
        tree = {**history[-1][1]} if history else {}
        for path, digest in files.items():
            if digest is None:
                del tree[path]
            else:
                tree[path] = digest
        oid = hashlib.sha1(f"{len(history)} {branch} {sorted(tree.items())}".encode()).hexdigest()
        history.append((oid, tree))
        return oid

    def files(self, name: str, branch: str = "main") -> dict[str, bytes]:
        """Return what a branch holds, without the hub's own file."""
        tree = self.repositories[name].branches[branch][-1][1]
        return {path: self.objects[digest] for path, digest in tree.items() if path != ".gitattributes"}

    def commits(self, name: str) -> dict[str, int]:
        """Return how many commits each branch has."""
        return {branch: len(history) for branch, history in self.repositories[name].branches.items()}

    def sent(self) -> bytes:
        """Return every byte that was sent to the hub in the body of a request, also as it was before base64."""
        parts = []
        for request in self.requests:
            parts.append(request.body)
            for coded in re.findall(rb'"(?:content|sample)": ?"([A-Za-z0-9+/=]+)"', request.body):
                parts.append(base64.b64decode(coded))
        return b"\n".join(parts)

    def state(self) -> dict[str, Any]:
        """Return all contents of all branches, by digest."""
        return {
            name: (repository.private, {branch: history[-1][1] for branch, history in repository.branches.items()})
            for name, repository in self.repositories.items()
        }

    def blob(self, digest: str) -> dict[str, Any]:
        content = self.objects[digest]
        facts: dict[str, Any] = {"type": "file", "size": len(content), "oid": git_hash(content)}
        if digest in self.large:
            facts["oid"] = git_hash(f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\n".encode())
            facts["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 134}
        return facts


def git_hash(content: bytes) -> str:
    """Return the name that git gives to a content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Refused(Exception):
    """An answer that is not 200: status, message and the hub's code of the error."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status, self.code = status, code


class Handler(BaseHTTPRequestHandler):
    """Answer as the hub does what huggingface_hub and transformers ask of it."""

    hub: FakeHub
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet: a second one waits 40 ms for the first to be acknowledged

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def answer(self) -> None:
        body = self._body()
        request = Request(self.command, self.path, dict(self.headers), body, time.time())
        with self.hub.lock:
            self.hub.requests.append(request)
            if self.hub.dies_before(request):
                self.close_connection = True
                return
            try:
                status, headers, content = self._route(request)
            except Refused as refused:
                status, content = refused.status, json.dumps({"error": str(refused)}).encode()
                headers = {"X-Error-Message": str(refused), "Content-Type": "application/json"}
                if refused.code:
                    headers["X-Error-Code"] = refused.code
            request.status = status
            if self.hub.dies_after(request):
                self.close_connection = True
                return
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline().strip(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _route(self, request: Request) -> tuple[int, dict[str, str], bytes]:
        path = unquote(urlsplit(request.path).path)
        for method, pattern, action in ROUTES:
            found = re.fullmatch(pattern, path)
            if found and request.method in method.split():
                result = action(self, request, *found.groups())
                if isinstance(result, tuple):
                    return result
                return 200, {"Content-Type": "application/json"}, json.dumps(result).encode()
        raise Refused(404, f"no such address: {request.method} {path}")

    def _token(self, request: Request) -> str | None:
        token = request.headers.get("authorization", request.headers.get("Authorization", "")).removeprefix("Bearer ")
        if token and token not in (TOKEN, READ_TOKEN):
            raise Refused(401, "Invalid credentials in Authorization header")
        return token or None

    def _repository(self, request: Request, name: str) -> Repository:
        repository = self.hub.repositories.get(name)
        token = self._token(request)
        if repository is None or (repository.private and token is None):
            raise Refused(404 if token else 401, "Repository not found", "RepoNotFound")
        return repository

    def _writable(self, request: Request, name: str) -> Repository:
        repository = self._repository(request, name)
        if self._token(request) != TOKEN or name.split("/")[0] not in self.hub.owners:
            raise Refused(403, "Forbidden: you must use a write token to upload to a repository.")
        return repository

    def _tree(self, repository: Repository, revision: str) -> tuple[str, dict[str, str]]:
        if revision in repository.branches:
            return repository.branches[revision][-1]
        for history in repository.branches.values():
            for oid, tree in history:
                if oid == revision:
                    return oid, tree
        raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def create_repository(self, request: Request) -> Any:
        asked = json.loads(request.body)
        name = f"{asked['organization']}/{asked['name']}"
        if self._token(request) is None:
            raise Refused(401, "Unauthorized")
        if self._token(request) != TOKEN or asked["organization"] not in self.hub.owners:
            raise Refused(403, "You don't have the rights to create a model under this namespace")
        status, made = 409, {"url": f"{self.hub.address}/{name}", "name": name, "id": name}
        if name not in self.hub.repositories:
            self.hub.create(name, private=asked.get("visibility") == "private")
            status = 200
        return status, {"Content-Type": "application/json"}, json.dumps(made).encode()

    def validate_card(self, request: Request) -> Any:
        """Check of a card what the hub's own validator is known to: types, licence, and the shape of results."""
        asked = json.loads(request.body)
        block = re.match(r"---\n(.*?)\n---\n", asked["content"], re.S)
        errors = card_errors(yaml.safe_load(block[1])) if block else ["there is no metadata"]
        if errors:
            content = json.dumps({"errors": [{"message": error} for error in errors], "warnings": []}).encode()
            return 400, {"Content-Type": "application/json"}, content
        return {"errors": [], "warnings": []}

    def info(self, request: Request, name: str, revision: str | None = None) -> Any:
        repository = self._repository(request, name)
        oid, tree = self._tree(repository, revision or "main")
        files = [{"rfilename": path} for path in tree]
        return {"id": name, "modelId": name, "sha": oid, "private": repository.private, "siblings": files, "tags": []}

    def refs(self, request: Request, name: str) -> Any:
        branches = self._repository(request, name).branches
        named = [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": h[-1][0]} for n, h in branches.items()]
        return {"branches": named, "converts": [], "tags": []}

    def tree(self, request: Request, name: str, revision: str, folder: str | None = None) -> Any:
        _, tree = self._tree(self._repository(request, name), revision)
        inside = f"{folder}/" if folder else ""
        found = [{"path": path, **self.hub.blob(digest)} for path, digest in tree.items() if path.startswith(inside)]
        if inside and not found:
            raise Refused(404, f"{folder} does not exist", "EntryNotFound")
        return found

    def branch(self, request: Request, name: str, branch: str) -> Any:
        repository = self._writable(request, name)
        if request.method == "DELETE":
            del repository.branches[branch]
            return {}
        if branch in repository.branches:
            raise Refused(409, "Reference already exists")
        start = json.loads(request.body or b"{}").get("startingPoint", "main")
        repository.branches[branch] = [self._tree(repository, start)]
        return {}

    def preupload(self, request: Request, name: str, revision: str) -> Any:
        _, tree = self._tree(self._writable(request, name), revision)
        files = []
        for file in json.loads(request.body)["files"]:
            digest = tree.get(file["path"])
            large = file["path"].endswith(LARGE)
            oid = None if digest is None else digest if digest in self.hub.large else self.hub.blob(digest)["oid"]
            mode = "lfs" if large else "regular"
            files.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return {"files": files}

    def batch(self, request: Request, name: str) -> Any:
        self._writable(request, name)
        objects = []
        for wanted in json.loads(request.body)["objects"]:
            entry: dict[str, Any] = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.hub.objects:
                entry["actions"] = {"upload": {"href": f"{self.hub.address}/lfs/{wanted['oid']}"}}
            objects.append(entry)
        return {"transfer": "basic", "objects": objects}

    def put(self, request: Request, oid: str) -> Any:
        if self.hub.keep(request.body, large=True) != oid:
            raise Refused(400, "the content is not that of the oid")
        return {}

    def commit(self, request: Request, name: str, branch: str) -> Any:
        repository = self._writable(request, name)
        changes: dict[str, str | None] = {}
        for line in request.body.decode().splitlines():
            key, value = (entry := json.loads(line))["key"], entry["value"]
            if key == "file":
                changes[value["path"]] = self.hub.keep(base64.b64decode(value["content"]))
            elif key == "lfsFile":
                if value["oid"] not in self.hub.objects:
                    raise Refused(400, f"no such object: {value['oid']}")
                changes[value["path"]] = value["oid"]
            elif key == "deletedFile":
                changes[value["path"]] = None
        if branch not in repository.branches:
            raise Refused(404, "no such branch", "RevisionNotFound")
        oid = self.hub.commit(repository, branch, changes)
        return {"commitOid": oid, "commitUrl": f"{self.hub.address}/{name}/commit/{oid}", "hookOutput": ""}

    def resolve(self, request: Request, name: str, revision: str, path: str) -> Any:
        oid, tree = self._tree(self._repository(request, name), revision)
        if path not in tree:
            raise Refused(404, "Entry not found", "EntryNotFound")
        content = self.hub.corrupt(path, self.hub.objects[tree[path]])
        etag = tree[path] if tree[path] in self.hub.large else git_hash(content)
        return 200, {"X-Repo-Commit": oid, "ETag": f'"{etag}"', "Content-Length": str(len(content))}, content

    def whoami(self, request: Request) -> Any:
        if self._token(request) is None:
            raise Refused(401, "Unauthorized")
        return {"type": "user", "name": self.hub.owners[0], "orgs": []}


NAME = r"([\w.-]+/[\w.-]+)"
ROUTES: list[tuple[str, str, Callable[..., Any]]] = [
    ("GET", r"/api/whoami-v2", Handler.whoami),
    ("POST", r"/api/repos/create", Handler.create_repository),
    ("POST", r"/api/validate-yaml", Handler.validate_card),
    ("GET", rf"/api/models/{NAME}", Handler.info),
    ("GET", rf"/api/models/{NAME}/revision/(.+)", Handler.info),
    ("GET", rf"/api/models/{NAME}/refs", Handler.refs),
    ("GET", rf"/api/models/{NAME}/tree/([^/]+)", Handler.tree),
    ("GET", rf"/api/models/{NAME}/tree/([^/]+)/(.+)", Handler.tree),
    ("POST DELETE", rf"/api/models/{NAME}/branch/(.+)", Handler.branch),
    ("POST", rf"/api/models/{NAME}/preupload/(.+)", Handler.preupload),
    ("POST", rf"/api/models/{NAME}/commit/(.+)", Handler.commit),
    ("POST", rf"/{NAME}\.git/info/lfs/objects/batch", Handler.batch),
    ("PUT", r"/lfs/([0-9a-f]{64})", Handler.put),
    ("GET HEAD", rf"/{NAME}/resolve/([^/]+)/(.+)", Handler.resolve),
]


def card_errors(data: Any) -> list[str]:
    """Return what is wrong with the metadata of a model card, as the hub's documentation describes them."""
    errors = []
    for key in ("license", "library_name", "pipeline_tag"):
        if key in data and not isinstance(data[key], str):
            errors.append(f'"{key}" must be a string')
    if "license" in data and not re.fullmatch(r"[a-z0-9][a-z0-9.-]+", str(data["license"])):
        errors.append('"license" must be one of the identifiers')
    for key in ("tags", "datasets"):
        if key in data and not (isinstance(data[key], list) and all(isinstance(entry, str) for entry in data[key])):
            errors.append(f'"{key}" must be a list of strings')
    for model in data.get("model-index", []):
        if not isinstance(model.get("name"), str) or not model["name"]:
            errors.append('"model-index[0].name" is required')
        for result in model["results"]:
            if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", result.get("dataset", {}).get("type", "")):
                errors.append('"model-index[0].results[0].dataset.type" must be an id')
            if not result.get("task", {}).get("type") or not result["dataset"].get("name"):
                errors.append('"model-index[0].results[0]" needs a task and the name of a dataset')
            for metric in result.get("metrics", [{}]):
                if not isinstance(metric.get("type"), str) or "value" not in metric:
                    errors.append('"model-index[0].results[0].metrics[0]" needs type and value')
    return errors


@contextmanager
def running() -> Iterator[FakeHub]:
    """Yield a hub that answers at its `address` until the block ends."""
    hub = FakeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("OwnHandler", (Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def surroundings(hub: FakeHub, home: str, *, token: str | None = TOKEN) -> dict[str, str]:
    """Return the environment of a command that knows this hub alone."""
    own = {
        "HF_ENDPOINT": hub.address,
        "HF_HOME": home,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "*",
        "no_proxy": "*",
    }
    return own | ({"HF_TOKEN": token} if token else {})


@contextmanager
def reached(hub: FakeHub, home: str, *, token: str | None = TOKEN) -> Iterator[None]:
    """Let this process know the hub: huggingface_hub has read its environment already."""
    from huggingface_hub import constants

    with pytest.MonkeyPatch.context() as patch:
        for name, value in surroundings(hub, home, token=token).items():
            patch.setenv(name, value)
        if token is None:
            patch.delenv("HF_TOKEN", raising=False)
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        patch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
        patch.setattr(constants, "ENDPOINT", hub.address)
        patch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        patch.setattr(constants, "HF_TOKEN_PATH", f"{home}/token")
        patch.setattr("huggingface_hub.hf_api.api.endpoint", hub.address)
        patch.setattr("transformers.utils.hub._hf_api", None)  # it keeps the address of the first hub that it knew
        yield
