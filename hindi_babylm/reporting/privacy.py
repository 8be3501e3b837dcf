"""What must not leave the machine in a file that is published: its paths, and secrets of its environment."""

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

SECRET_NAMES = ("TOKEN", "_KEY", "SECRET", "PASSWORD")  # ends of names of environment variables
SHORTEST_SECRET = 8  # characters: a shorter value may stand in any text


def public_names(recipe: Mapping[str, Any]) -> dict[str, str]:
    """Return what the local paths that a resolved recipe names are called in public: their last part, no two alike.

    >>> public_names({"corpus": {"sources": [{"path": "/data/x/a.txt"}, {"path": "b/a.txt"}]}, "tokenizer": {}})
    {'/data/x/a.txt': 'a.txt', 'b/a.txt': 'a.txt (2)'}
    """
    paths = [str(source["path"]) for source in recipe["corpus"]["sources"] if "path" in source]
    # A task that is no file is a name, which has no folder.
    paths += [task for task in recipe.get("evaluation", {}).get("tasks", []) if Path(task).name != task]
    # A dataset or tokenizer of the hub is named by the same key as a folder laid out like one, settings as their file.
    others = [source.get("hub_id") for source in recipe["corpus"]["sources"]]
    others += [recipe["tokenizer"].get("tokenizer")]
    others += [recipe.get("training", {}).get(key) for key in ("deepspeed", "fsdp_config")]
    paths += [path for path in others if isinstance(path, str) and path and (is_path(path) or Path(path).exists())]
    names: dict[str, str] = {}
    for path in dict.fromkeys(paths):
        names[path] = _unlike(Path(path).name or "texts", names.values())
    return names


def scrubbed(value: Any, names: Mapping[str, str], places: Iterable[str]) -> Any:
    """Return JSON `value` without paths of the machine: those of `names` by their names, others by their last part.

    `places` are folders that are cut out of longer texts.

    >>> scrubbed({"/data/x/a.txt": ["see /data/x/runs/log", "/mnt/b"]}, {"/data/x/a.txt": "a.txt"}, ["/data/x/runs"])
    {'a.txt': ['see log', 'b']}
    """
    places = list(places)
    if isinstance(value, Mapping):
        public: dict[str, Any] = {}
        for key, entry in value.items():
            public[_unlike(scrubbed(key, names, places), public)] = scrubbed(entry, names, places)
        return public
    if isinstance(value, (list, tuple)):
        return [scrubbed(entry, names, places) for entry in value]
    if not isinstance(value, str):
        return value
    if value in names:
        return names[value]
    if is_path(value) and "\n" not in value:
        return Path(value).name
    for place in sorted(places, key=len, reverse=True):
        value = re.sub(_pattern(place) + "/?", "", value)
    return value


def is_path(text: str) -> bool:
    """Tell whether a text as a whole is a path from the root, a home or a parent folder, here or on Windows."""
    return bool(re.match(r"/[^\s/]|~\w*[/\\]|\.\.[/\\]|[A-Za-z]:\\|\\\\", text))


def machine_places(folder: Path) -> list[str]:
    """Return the folders of this machine that a file of a run may name: those of the run, of work and of the user."""
    places = [folder.resolve(), folder.absolute(), Path.cwd(), Path.home()]
    return list(dict.fromkeys(str(place) for place in places if len(place.parts) > 1))


def leak(text: str, places: Iterable[str]) -> str | None:
    """Return the first of `places` that a text names, or None."""
    return next((place for place in places if re.search(_pattern(place), text)), None)


def secrets(token: str | None) -> dict[str, str]:
    """Return the values that no file may hold, with the names under which an error tells them."""
    found = {
        value: name
        for name, value in os.environ.items()
        if name.upper().endswith(SECRET_NAMES) and len(value) >= SHORTEST_SECRET
    }
    return found | ({token: "the token of the hub"} if token else {})


def _pattern(place: str) -> str:
    return rf"(?<![\w.~-]){re.escape(place)}(?![\w-])"


def _unlike(name: str, others: Iterable[str]) -> str:
    """Return a name with a number behind it where the others have it already."""
    taken, number, own = set(others), 2, name
    while own in taken:
        own, number = f"{name} ({number})", number + 1
    return own
