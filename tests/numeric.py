"""Numerical helpers for tests against independent references."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray


def numeric_gradient(
    function: Callable[[NDArray[np.float64]], float], point: NDArray[np.float64], step: float = 1e-6
) -> NDArray[np.float64]:
    """Central differences of a scalar function, of the shape of ``point``."""
    gradient = np.zeros_like(point)
    for index in np.ndindex(*point.shape):
        above, below = point.copy(), point.copy()
        above[index] += step
        below[index] -= step
        gradient[index] = (function(above) - function(below)) / (2 * step)
    return gradient
