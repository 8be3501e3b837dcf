"""The values of a recipe, and where each of them was given, as errors say it."""

from collections.abc import Mapping
from typing import Any

from hindi_babylm.recipe.checking import Key, show
from hindi_babylm.recipe.sections import FLAGS, Recipe


class Given:
    """The values of a recipe, and where each of them was given."""

    def __init__(self, recipe: Recipe, keys: Mapping[str, Key]) -> None:
        self.recipe, self.keys = recipe, keys
        self.values: dict[str, Any] = {
            name: recipe.training.get(name, key.default)
            if key.section == "training"
            else getattr(getattr(recipe, key.section), name)
            for name, key in keys.items()
        }

    def by_flag(self, name: str) -> bool:
        """Tell whether the command line gave the value."""
        return self.at(name).startswith(FLAGS)

    def at(self, name: str) -> str:
        """Return the file with section and key, or the flag: where the value stands, or where it could."""
        return self.recipe.place(name)

    def first(self, name: str) -> str:
        """Return place and value, as an error begins."""
        return f"{self.at(name)} = {show(self.values[name])}{'' if name in self.recipe.places else ' (default)'}"

    def other(self, name: str, beside: str) -> str:
        """Return place and value as they stand in an error that began with the key `beside`."""
        place, file = self.first(name).removeprefix(FLAGS), f"{self.recipe.path}: "
        if not place.startswith(file):
            return place
        place = place.removeprefix(file)
        return f"{place} of {self.recipe.path}" if self.by_flag(beside) and name in self.recipe.places else place
