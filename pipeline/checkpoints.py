"""Checkpoints: all that a training needs to go on bit for bit, in one file that is whole or absent."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import torch

from ..errors import UserError
from .files import write_bytes

FILE = "state.pt"


def write_state(folder: Path, state: dict[str, Any]) -> None:
    """Replace the checkpoint of a run folder: tensors, numbers, strings, and lists and dicts of them."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
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
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError, OSError) as error:
        reason = str(error).split("\n")[0]
        raise UserError(f"{path}: a damaged checkpoint ({reason}); delete it to train from the beginning") from error
    if not isinstance(state, dict) or "identity" not in state:
        raise UserError(f"{path}: not a checkpoint of xelvad; delete it to train from the beginning")
    return state


def check_identity(folder: Path, saved: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Refuse to go on with another configuration or other data than a training began with.

    Raises:
        UserError: names the keys that differ, with both values.
    """
    before, now = _flat(saved), _flat(wanted)
    differing = [
        f"{key} was {before.get(key, 'not there')}, now is {now.get(key, 'not there')}"
        for key in before | now
        if before.get(key) != now.get(key)
    ]
    if differing:
        raise UserError(f"{folder}: cannot go on, because {'; '.join(differing)}; use another --out for another run")


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= _flat(item, f"{prefix}{key}.") if isinstance(item, dict) else {f"{prefix}{key}": item}
    return flat
