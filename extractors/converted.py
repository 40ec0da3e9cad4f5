"""Converted networks: what OpenVINO makes of a network, kept in the per-user cache: converting takes ten seconds.

A conversion belongs to one network with its weights, as the code that builds it stands, to one shape of input, and to
the versions of PyTorch and OpenVINO. It is whole or absent, and one that is damaged is made again.
"""

from __future__ import annotations

import hashlib
import inspect
import logging
import platform
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterable
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import networks
from .networks import ClipExtractor
from .weights import RANDOM, user_cache

MODEL, WEIGHTS, DIGEST, COMPILED = "model.xml", "model.bin", "sha256", "compiled"

logger = logging.getLogger(__name__)


def converted(extractor: ClipExtractor, example: Tensor) -> tuple[Any, Path | None]:
    """OpenVINO's model of an extractor's network, from the cache or made now.

    Args:
        extractor: the network with its weights, on the CPU.
        example: one input ``(1, C, T, H, W)``; the model takes this shape alone.

    Returns:
        The model, and a folder in which OpenVINO may keep what it compiles for this machine; None where nothing is
        kept: of random weights, or because the cache cannot be written to.
    """
    import openvino

    folder = user_cache() / "openvino" / key_of(extractor, example)
    if is_whole(folder):
        return openvino.Core().read_model(folder / MODEL), folder / COMPILED
    logger.info("%s: converting the network for OpenVINO, once", extractor.spec.name)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the converter traces, and warns that shapes are fixed: they are
        model = openvino.convert_model(extractor.network, example_input=example)
    model.reshape(list(example.shape))
    if RANDOM in extractor.fingerprint:  # for trials, which would fill the disk
        return model, None
    try:
        keep(model, folder)
    except OSError as error:
        logger.info("%s: cannot be kept (%s), and will be converted again", folder, error.strerror or error)
        return model, None
    return openvino.Core().read_model(folder / MODEL), folder / COMPILED  # the same from the first time on


def key_of(extractor: ClipExtractor, example: Tensor) -> str:
    """What a conversion belongs to, as the name of its folder."""
    built_by = import_module(extractor.spec.module, __package__)
    code = sys.modules[type(extractor.network[1]).__module__]
    parts = [
        extractor.fingerprint,
        str((tuple(example.shape), example.dtype)),
        torch.__version__,
        version("torchvision"),
        version("openvino"),
        platform.machine(),
        *(inspect.getsource(module) for module in (networks, built_by, code)),
    ]
    return f"{extractor.spec.name}-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:24]}"


def is_whole(folder: Path) -> bool:
    """Whether a conversion is there, with the bytes that were written."""
    try:
        return (folder / DIGEST).read_text() == digest_of_files(folder / name for name in (MODEL, WEIGHTS))
    except (OSError, UnicodeDecodeError):
        return False


def keep(model: Any, folder: Path) -> None:
    """Put a conversion in its place, whole.

    Raises:
        OSError: the cache cannot be written to, or is full.
    """
    import openvino

    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        try:
            openvino.save_model(model, made / MODEL, compress_to_fp16=False)
        except RuntimeError as error:  # OpenVINO's way of saying that the disk is full
            raise OSError(str(error).split("\n")[0]) from error
        (made / DIGEST).write_text(digest_of_files(made / name for name in (MODEL, WEIGHTS)))
        if folder.exists() and not is_whole(folder):
            shutil.rmtree(folder)
        if not folder.exists():
            made.replace(folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def digest_of_files(paths: Iterable[Path]) -> str:
    """One SHA-256 over the bytes of several files."""
    total = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                total.update(block)
    return total.hexdigest()
