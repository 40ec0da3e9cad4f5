"""A pickle reader that admits nothing but dictionaries, text, numbers and NumPy arrays.

The original I3D weights are published as a pickle. An ordinary `pickle.load` runs whatever code the file asks for;
this reader resolves the few NumPy names that a plain array needs and refuses every other name.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable

import numpy as np

try:
    from numpy._core.multiarray import _reconstruct
except ImportError:  # NumPy 1
    from numpy.core.multiarray import _reconstruct  # type: ignore[no-redef]

_ARRAY_PARTS: dict[tuple[str, str], Callable[..., object]] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Callable[..., object]:
        try:
            return _ARRAY_PARTS[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"the pickle asks for {module}.{name}, which is not a plain array") from None


def load_arrays(data: bytes) -> dict[str, np.ndarray]:
    """Read a pickled, possibly nested dictionary of float32 arrays as a flat one, keys joined by ``/``.

    Raises:
        pickle.UnpicklingError: the pickle is damaged or holds anything else.
    """
    try:
        return dict(_flatten(_ArrayUnpickler(io.BytesIO(data)).load(), ""))
    except pickle.UnpicklingError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        raise pickle.UnpicklingError(f"not a readable pickle ({type(error).__name__}: {error})") from error


def _flatten(node: object, path: str) -> list[tuple[str, np.ndarray]]:
    if isinstance(node, dict):
        return [leaf for key, child in node.items() for leaf in _flatten(child, f"{path}/{key}" if path else str(key))]
    if isinstance(node, np.ndarray) and node.dtype == np.float32:
        return [(path, node)]
    raise pickle.UnpicklingError(f"{path or 'the top level'} is a {type(node).__name__}, not a float32 array")
