"""Converted networks: what OpenVINO makes of a network, kept in the per-user cache: converting takes ten seconds.

A conversion belongs to one network with its weights, as the code that builds it stands, to one shape of input, to the
versions of PyTorch and OpenVINO, and, in 8 bits, to the clips that it was quantised by. It is whole or absent, and one
that is damaged is made again.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import io
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

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from . import networks
from .networks import ClipExtractor
from .precision import Arithmetic, Calibration, mark_of, multiplies_bfloat16, without_telemetry
from .weights import RANDOM, user_cache

MODEL, WEIGHTS, DIGEST, COMPILED = "model.xml", "model.bin", "sha256", "compiled"

logger = logging.getLogger(__name__)


def compiled(
    extractor: ClipExtractor, example: Tensor, arithmetic: Arithmetic, calibration: Calibration | None = None
) -> Any:
    """An extractor's network, ready to compute on this processor.

    Args:
        extractor: the network with its weights, on the CPU.
        example: one input ``(1, C, T, H, W)``; the model takes this shape alone.
        arithmetic: "float32", "bfloat16" or "int8".
        calibration: to quantise by.
    """
    without_telemetry()
    import openvino

    model, kept = converted(extractor, example, calibration if arithmetic == "int8" else None)
    low = arithmetic == "bfloat16" or (arithmetic == "int8" and multiplies_bfloat16())  # what is not in 8 bits
    settings = {"INFERENCE_PRECISION_HINT": "bf16" if low else "f32", "PERFORMANCE_HINT": "LATENCY"}
    if kept is not None:
        settings["CACHE_DIR"] = str(kept)
    return openvino.Core().compile_model(model, "CPU", settings)


def converted(
    extractor: ClipExtractor, example: Tensor, calibration: Calibration | None = None
) -> tuple[Any, Path | None]:
    """OpenVINO's model of an extractor's network, from the cache or made now.

    Args:
        extractor: the network with its weights, on the CPU.
        example: one input ``(1, C, T, H, W)``; the model takes this shape alone.
        calibration: None, or what the network is quantised by.

    Returns:
        The model, and a folder in which OpenVINO may keep what it compiles for this machine; None where nothing is
        kept: of random weights, or because the cache cannot be written to.
    """
    without_telemetry()
    import openvino

    folder = user_cache() / "openvino" / key_of(extractor, example, calibration)
    if is_whole(folder):
        return openvino.Core().read_model(folder / MODEL), folder / COMPILED
    model = traced(extractor, example) if calibration is None else quantised(extractor, example, calibration)
    if RANDOM in extractor.fingerprint:  # for trials, which would fill the disk
        return model, None
    try:
        keep(model, folder)
    except OSError as error:
        logger.info("%s: cannot be kept (%s), and will be converted again", folder, error.strerror or error)
        return model, None
    return openvino.Core().read_model(folder / MODEL), folder / COMPILED  # the same from the first time on


def traced(extractor: ClipExtractor, example: Tensor) -> Any:
    """A network as OpenVINO understands it."""
    import openvino

    logger.info("%s: converting the network for OpenVINO, once", extractor.spec.name)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the converter traces, and warns that shapes are fixed: they are
        model = openvino.convert_model(extractor.network, example_input=example)
    model.reshape(list(example.shape))
    return model


def quantised(extractor: ClipExtractor, example: Tensor, calibration: Calibration) -> Any:
    """The same in 8 bits, by NNCF, which measures the numbers within the network over the clips of the calibration.

    With its quicker way of correcting biases, a cosine of I3D's features with those in float32 of 0.96 is left.
    """
    import nncf

    model, _ = converted(extractor, example)
    logger.info("%s: putting the network into 8 bits by %s, once: some minutes", extractor.spec.name, calibration.name)
    inputs = [one[None].contiguous().numpy() for clip in calibration.clips() for one in _rows(extractor, clip)]
    with contextlib.redirect_stdout(io.StringIO()):  # its progress bars
        return nncf.quantize(model, nncf.Dataset(inputs), subset_size=len(inputs), fast_bias_correction=False)


def _rows(extractor: ClipExtractor, clip: NDArray[np.uint8]) -> Tensor:
    """A clip's inputs ``(crops, C, T, H, W)``, one where the extractor looks at one crop."""
    return extractor.preprocess(clip[None]).flatten(0, -5)


def key_of(extractor: ClipExtractor, example: Tensor, calibration: Calibration | None = None) -> str:
    """What a conversion belongs to, as the name of its folder."""
    built_by = import_module(extractor.spec.module, __package__)
    code = sys.modules[type(extractor.network[1]).__module__]
    parts = [
        extractor.fingerprint,
        "" if calibration is None else mark_of("int8", calibration),
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
