"""What lies in a run folder beside JSON: settings, weights, scaling. It may be anybody's, and is checked before use.

Nothing is unpickled, and no memory is taken because a file says so.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from ...errors import UserError
from ..features.config import Scale
from ..features.scaling import Scaling

if TYPE_CHECKING:
    from torch import Tensor

    from ...models import Detector

ADVICE = "take the run folder whole from where it was made, or train again"
MAX_SETTINGS = 10_000  # of a configuration, also where its parts stand for each other


def read_yaml(path: Path) -> dict[str, Any]:
    """The settings in a YAML file, which may be anybody's.

    Raises:
        UserError: missing, damaged, not settings with names, or more of them than there are.
    """
    try:
        settings = yaml.safe_load(path.read_text("utf-8"))
        if not isinstance(settings, dict) or not all(isinstance(name, str) for name in settings):
            raise ValueError("no settings with names")
        _count_settings(settings, 0)  # parts that stand for each other unfold to more than memory holds
    except RecursionError as error:
        raise UserError(f"{path}: damaged (nested too deeply); {ADVICE}") from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path}: damaged ({' '.join(str(error).split())[:200]}); {ADVICE}") from error
    return settings


def _count_settings(value: Any, before: int) -> int:
    count = before + 1
    if count > MAX_SETTINGS:
        raise ValueError(f"more than {MAX_SETTINGS} settings")
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for item in items:
        count = _count_settings(item, count)
    return count


def check_weights(state: dict[str, Tensor], make: Callable[[], Detector]) -> None:
    """Refuse weights of another detector than ``make`` makes, before memory is taken for one as large as that is.

    Raises:
        ValueError: says what is wrong with which.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    class Unfilled(TorchFunctionMode):
        """Random weights of no memory: drawing them would import torch's compiler, which takes a second."""

        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if getattr(func, "__name__", "") in ("normal_", "uniform_", "zero_", "fill_"):
                return args[0] if args else kwargs["tensor"]
            return func(*args, **(kwargs or {}))

    with torch.device("meta"), Unfilled():
        wanted = make().state_dict()
    odd = sorted(state.keys() ^ wanted.keys())
    if odd:
        raise ValueError(f"{odd[0]} is {'missing' if odd[0] in wanted else 'unknown'}")
    for name, tensor in state.items():
        if tensor.shape != wanted[name].shape or tensor.dtype != wanted[name].dtype:
            made = f"{wanted[name].dtype} {tuple(wanted[name].shape)}"
            raise ValueError(f"{name} is {tensor.dtype} {tuple(tensor.shape)}, not {made}")
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{name} has NaN or infinite numbers")


def read_scaling(path: Path, scale: Scale, feature_dim: int) -> Scaling:
    """What a run scales features by.

    Raises:
        UserError: it is missing though the scale needs it, or damaged.
    """
    import safetensors.numpy

    try:
        arrays = safetensors.numpy.load(path.read_bytes()) if path.exists() else {}
        scaling = Scaling.restored(scale, arrays)
        for name, array in scaling.arrays.items():
            if array.shape != (feature_dim,) or array.dtype != np.float32 or not np.isfinite(array).all():
                raise ValueError(f"{name} is not {feature_dim} numbers, one for each dimension of the features")
        if scaling.deviation is not None and not (scaling.deviation > 0).all():
            raise ValueError("a deviation that is not above 0")
    except (OSError, KeyError, ValueError, TypeError, safetensors.SafetensorError) as error:
        raise UserError(f"{path}: what features are scaled by is missing or damaged ({error})") from error
    return scaling
