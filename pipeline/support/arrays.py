"""Arrays in NumPy's files, of a known shape: mapped, or read row by row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import UserError


def map_array(path: Path, shape: tuple[int, ...]) -> np.memmap[Any, Any]:
    """Map a feature file of known shape; writing to the map does not change the file.

    Raises:
        UserError: missing, damaged, or of another shape.
    """
    try:
        # Private, so that torch may take it for its own; never unpickles.
        array = np.lib.format.open_memmap(path, mode="c")
        size, wanted = path.stat().st_size, array.offset + array.nbytes
    except (OSError, ValueError, EOFError, OverflowError) as error:
        raise UserError(f"{path}: a damaged feature file ({error}); delete it and extract again") from error
    if array.shape != shape or array.dtype != np.float32:
        raise UserError(
            f"{path}: {array.dtype} {array.shape}, not float32 {shape} as made; delete it and extract again"
        )
    if size != wanted:
        raise UserError(f"{path}: {size} bytes, not {wanted} as its header says; delete it and extract again")
    return array


def copied(values: NDArray[np.float32], out: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """Values in ``out``, or in an array of the caller's own."""
    if out is None:
        return np.array(values)
    out[:] = values
    return out


def read_rows(out: NDArray[np.float32], path: Path, mapped: np.memmap[Any, Any], rows: slice) -> None:
    """Read consecutive rows past the map, whose page faults cost as much again as reading does.

    Args:
        out: where to put them, contiguous, of their shape.
        path: the file.
        mapped: all of it.
        rows: which.

    Raises:
        UserError: the file ends too early.
    """
    start, stop, _ = rows.indices(len(mapped))
    if out.shape != (max(stop - start, 0), *mapped.shape[1:]) or not out.flags.c_contiguous:
        raise ValueError(f"{path}: rows {start} to {stop} of {mapped.shape} do not fit into {out.shape}")
    waiting = out.reshape(-1).view(np.uint8).data
    with path.open("rb", buffering=0) as file:
        file.seek(mapped.offset + start * mapped.strides[0])
        while waiting:
            count = file.readinto(waiting)
            if not count:
                raise UserError(f"{path}: ends too early; delete it and extract the video again")
            waiting = waiting[count:]
