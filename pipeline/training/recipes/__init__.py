"""Recipes: named settings for training, one YAML file each: `general/` for any videos, and a folder per data set.

A recipe stands in for the defaults: a configuration file overrides it, and flags override that.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from ....errors import UserError
from ....schema import parse
from ..config import TrainingConfig

FOLDER = Path(__file__).parent
GENERAL = "general"


def recipe_names() -> list[str]:
    """All recipes, such as ``ucf-crime/srf+xel``."""
    return sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.glob("*/*.yaml"))


def recipe_path(name: str) -> Path:
    """The file of a recipe.

    Raises:
        UserError: there is none of this name.
    """
    if name not in recipe_names():
        raise UserError(f"there is no recipe {name!r}; known: {', '.join(recipe_names())}")
    return FOLDER / f"{name}.yaml"


def load_recipe(name: str) -> TrainingConfig:
    """The settings of a recipe.

    Raises:
        UserError: there is none of this name, or it has settings that there are not; names the file and the setting.
    """
    path = recipe_path(name)
    return parse(TrainingConfig, yaml.safe_load(path.read_text("utf-8")), path, "correct it as TrainingConfig says")


def detector_recipe(detector: str) -> str:
    """The recipe that a detector is trained by unless another is named: its own, or MIL's where it has none.

    Raises:
        UserError: there is no such detector.
    """
    name = f"{GENERAL}/{detector}"
    if name in recipe_names():
        return name
    from ....models import DETECTORS, FRAMEWISE  # imports torch, for which the command line does not wait without need

    if detector not in DETECTORS:
        known = ", ".join(sorted((*DETECTORS, *FRAMEWISE)))
        raise UserError(f"there is no detector {detector!r}; known: {known}")
    return f"{GENERAL}/mil"


def recipe_in(arguments: Sequence[str]) -> str:
    """The recipe that a command line asks for: by ``--recipe``, or else by ``--detector``, or else MIL's.

    Both may stand in a file given by ``--config`` instead.

    Raises:
        UserError: an unknown recipe or detector.
    """
    given: dict[str, str] = {}
    for path in reversed(_values_of("--config", arguments)):
        given = _named_in(Path(path)) | given
    for key in ("recipe", "detector"):
        for value in _values_of(f"--{key}", arguments):
            given[key] = value
    if "recipe" in given:
        recipe_path(given["recipe"])
        return given["recipe"]
    return detector_recipe(given.get("detector", "mil"))


def _values_of(option: str, arguments: Sequence[str]) -> list[str]:
    values: list[str] = []
    for place, argument in enumerate(arguments):
        if argument == option:
            values += arguments[place + 1 : place + 2]
        elif argument.startswith(f"{option}="):
            values.append(argument.partition("=")[2])
    return values


def _named_in(config: Path) -> dict[str, str]:
    """What a configuration file says about recipe and detector; one that cannot be read is refused later, by name."""
    try:
        settings = yaml.safe_load(config.read_text("utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}
    found = settings if isinstance(settings, dict) else {}
    return {key: str(found[key]) for key in ("recipe", "detector") if found.get(key)}
