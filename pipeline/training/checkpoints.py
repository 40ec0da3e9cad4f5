"""Checkpoints: all that a training needs to go on bit for bit, in one file that is whole or absent."""

from __future__ import annotations

import io
import pickle
import sys
import time
import zipfile
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ...errors import UserError
from ...files import write_bytes
from .config import TrainingConfig

FILE = "state.pt"
SECONDS = 30.0  # of training that a crash can cost
NAMED = 6  # items of a list that an error message names
clock = time.monotonic
DAMAGE = (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError, OSError, zipfile.BadZipFile, zlib.error)


class CheckpointWriter:
    """Writes the checkpoints of one training, now and then.

    Args:
        folder: of the run.
        identity: what must be the same for a training to go on.
    """

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        self.folder, self._identity = folder, identity
        self._written = clock()

    def is_due(self) -> bool:
        """Whether a crash would cost too much by now."""
        return clock() - self._written > SECONDS

    def write(self, state: dict[str, Any]) -> None:
        """Write one, of all that the rest of the training depends on."""
        write_state(self.folder, {"identity": self._identity} | state)
        self._written = clock()


def write_state(folder: Path, state: dict[str, Any]) -> None:
    """Replace the checkpoint of a run folder: tensors, numbers, strings, and lists and dicts of them."""
    buffer = io.BytesIO()
    torch.save(_interned(state), buffer)
    write_bytes(folder / FILE, buffer.getvalue())


def read_state(folder: Path) -> dict[str, Any] | None:
    """The checkpoint of a run folder; None if there is none. Nothing but tensors and plain data is unpickled.

    Raises:
        UserError: damaged, or holds anything else.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:  # torch does not look at the checksums
                raise ValueError("a checksum does not fit")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except DAMAGE as error:
        reason = str(error).split("\n")[0]
        raise UserError(f"{path}: a damaged checkpoint ({reason}); delete it to train from the beginning") from error
    if not isinstance(state, dict) or "identity" not in state:
        raise UserError(f"{path}: not a checkpoint of xelvad; delete it to train from the beginning")
    return state


def check_identity(folder: Path, saved: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Refuse to go on with another configuration or other data than a training began with.

    What was trained before an option existed was trained as its default is: so defaults of new options are chosen.

    Raises:
        UserError: names the keys that differ, with both values.
    """
    before, now = flat(saved), flat(wanted)
    if "config" in saved:
        before = flat({"config": asdict(TrainingConfig())}) | before
    differing = [
        f"{key} {_difference(before.get(key, 'not there'), now.get(key, 'not there'))}"
        for key in before | now
        if before.get(key) != now.get(key)
    ]
    if differing:
        raise UserError(f"{folder}: cannot go on, because {'; '.join(differing)}; use another --out for another run")


def _difference(before: Any, now: Any) -> str:
    """In a few words, however many videos a list has."""
    if isinstance(before, list) and isinstance(now, list) and max(len(before), len(now)) > NAMED:
        gone, new = ([item for item in a if item not in b] for a, b in ((before, now), (now, before)))
        if gone or new:
            changes = [f"{sign}{item}" for sign, items in (("-", gone), ("+", new)) for item in items]
            more = f" and {len(changes) - NAMED} more" if len(changes) > NAMED else ""
            return f"changed: {', '.join(changes[:NAMED])}{more}"
        return "changed in order"
    return f"was {before}, now is {now}"


def _interned(value: Any) -> Any:
    """A copy in which equal strings are one object: pickle writes two objects otherwise than one that comes twice.

    What was read from a checkpoint would else give other bytes than what was never written.
    """
    if isinstance(value, dict):
        return {_interned(key): _interned(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_interned(item) for item in value)
    return sys.intern(str(value)) if isinstance(value, str) else value


def flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one dictionary, with names such as ``xel.mode``."""
    named: dict[str, Any] = {}
    for key, item in value.items():
        named |= flat(item, f"{prefix}{key}.") if isinstance(item, dict) else {f"{prefix}{key}": item}
    return named
