"""Products of float32 matrices by oneDNN, where it is as exact as PyTorch's default, without its hunger for memory.

On AMD's processors oneDNN multiplies large float32 matrices up to a fifth faster than MKL, which PyTorch takes by
default. But it compiles a product anew for each shape that it meets and keeps a thousand of them, of megabytes each:
videos of uneven length would fill the memory (benchmarks/training.py).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch

CAPACITIES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")  # oneDNN's own; of PyTorch's calls of it
KEPT = "32"  # compiled products; a training step makes about twenty
LARGEST_ERROR = 5e-5  # of exact products, in standard deviations: float32's rounding gives 5e-6, TF32's 1e-3


def keep_few_products() -> None:
    """Let oneDNN keep few compiled products. Call it before anything is computed: it is read once in a process.

    It is for processes that train. A convolutional network has more kinds of products than these, and would compile
    them again for every clip.
    """
    for name in CAPACITIES:
        os.environ.setdefault(name, KEPT)


@contextmanager
def fast_products() -> Iterator[None]:
    """Products by oneDNN for the length of a block, after `keep_few_products` and where they are exact.

    PyTorch does that under the precision "medium", which allows for less: with AMX, oneDNN rounds to bfloat16. So it is
    tried. A precision that the user has set stays as it is.
    """
    before = torch.get_float32_matmul_precision()
    if before == "highest" and all(name in os.environ for name in CAPACITIES) and _medium_is_exact():
        torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def plain_products() -> Iterator[None]:
    """PyTorch's default products for the length of a block: oneDNN is no faster with vectors, whatever their length."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@lru_cache(maxsize=1)
def _medium_is_exact() -> bool:
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(256, 1024, generator=generator, dtype=torch.float64) for _ in range(2))
    exact = left @ right.t()
    torch.set_float32_matmul_precision("medium")
    try:
        error = (left.float() @ right.float().t()).double() - exact
    finally:
        torch.set_float32_matmul_precision("highest")
    return bool(error.abs().max() < LARGEST_ERROR * exact.std())
