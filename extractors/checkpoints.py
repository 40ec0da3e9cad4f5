"""Checkpoint files of any public container, read without running anything in them."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from .unpickling import load_arrays

WRAPPERS = ("state_dict", "model_state", "model_state_dict")  # under which training scripts keep a state dict


def read_checkpoint(path: Path) -> dict[str, NDArray[np.float32]]:
    """Names and arrays of a checkpoint file: safetensors, a PyTorch state dict, or a pickle of plain arrays.

    Raises:
        UserError: the file is missing, damaged, of another kind, or would need unsafe unpickling.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot read the checkpoint ({error.strerror})") from error
    if path.suffix == ".safetensors":
        return read_safetensors(path, data)
    if data[:2] == b"PK":  # the zip container of torch.save
        return _read_torch(path)
    try:
        return load_arrays(data)
    except pickle.UnpicklingError as not_arrays:
        if b"torch" in data[:4096]:  # the older container of torch.save
            return _read_torch(path)
        raise UserError(f"{path}: not a checkpoint that can be read safely: {not_arrays}") from not_arrays


def read_safetensors(path: Path, data: bytes) -> dict[str, NDArray[np.float32]]:
    """Names and arrays of ``data``, the contents of ``path``.

    Raises:
        UserError: damaged.
    """
    import safetensors
    import safetensors.torch

    try:
        return {name: tensor.float().numpy() for name, tensor in safetensors.torch.load(data).items()}
    except safetensors.SafetensorError as error:
        raise UserError(f"{path}: a damaged safetensors file ({error})") from error


def _read_torch(path: Path) -> dict[str, NDArray[np.float32]]:
    import torch

    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever the damage makes of it
        reason = str(error).split("\n")[0]
        raise UserError(f"{path}: not a PyTorch checkpoint that can be read safely ({reason})") from error
    if isinstance(loaded, Mapping):
        loaded = next((loaded[name] for name in WRAPPERS if isinstance(loaded.get(name), Mapping)), loaded)
    if not isinstance(loaded, Mapping):
        raise UserError(f"{path}: holds a {type(loaded).__name__}, not a state dict")
    tensors = {str(name): tensor for name, tensor in loaded.items() if isinstance(tensor, torch.Tensor)}
    return {name: tensor.detach().float().numpy() for name, tensor in tensors.items()}
