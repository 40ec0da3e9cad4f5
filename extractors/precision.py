"""Precisions: the arithmetic that a network computes in, and which of them give the same features.

Features of one folder may be mixed where their cosine with those in float32 was measured to be 0.9995 at least, over
real and over hard pictures (docs/results.md). Those in bfloat16 may, and those in 8 bits may not: their fingerprint
says so.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from .base import ExtractorSpec
from .weights import digest_of

if TYPE_CHECKING:
    import torch

Precision = Literal["auto", "float32", "bfloat16", "int8"]
Arithmetic = Literal["float32", "bfloat16", "float16", "int8"]  # what "auto" comes to


INT8 = " | int8"  # where a fingerprint begins to speak of it


@dataclass(frozen=True)
class Calibration:
    """Clips by which the ranges of the numbers within a network are measured, before it computes in 8 bits.

    Attributes:
        name: what they are; others make other features, and need another name.
        clips: uint8 RGB ``(length, H, W, 3)``, some tens.
    """

    name: str
    clips: Callable[[], Iterable[NDArray[np.uint8]]]


def fingerprint_of(spec: ExtractorSpec, weights: str | None, precision: Precision, calibration: Calibration) -> str:
    """The fingerprint of features, known without building the network.

    Raises:
        UserError: the weights are not at hand, or what computes in this precision is not installed.
    """
    return spec.fingerprint(digest_of(spec, weights)) + mark_of(precision, calibration)


def mark_of(arithmetic: str, calibration: Calibration | None) -> str:
    """What an arithmetic adds to the fingerprint: nothing, where the features are those in float32.

    Raises:
        UserError: there is nothing to quantise by, or what quantises is not installed.
    """
    if arithmetic != "int8":
        return ""
    if calibration is None:
        raise UserError("int8 needs clips by which the numbers within the network are measured: there are none")
    if find_spec("nncf") is None:
        raise UserError('--precision int8 is not installed: pip install "xelvad[int8]"')
    return f"{INT8}, ranges of {calibration.name}, nncf {version('nncf')}"


def choose_precision(precision: Precision, spec: ExtractorSpec, runtime: str, device: torch.device) -> Arithmetic:
    """What "auto" stands for: the fastest of which the features are known to be the same.

    Half precision on a GPU. On a CPU bfloat16, where its processor multiplies it and the extractor's features were
    measured; else float32.

    Raises:
        UserError: there is no such precision, or not with this runtime, device or processor.
    """
    if precision not in get_args(Precision):
        raise UserError(f"--precision is one of {', '.join(get_args(Precision))}, not {precision}")
    of_openvino = precision == "int8" or (precision == "bfloat16" and device.type == "cpu")
    if of_openvino and runtime != "openvino":
        raise UserError(f"--precision {precision} needs --runtime openvino on a CPU, not {runtime} on {device}")
    if precision == "bfloat16" and runtime == "openvino" and not multiplies_bfloat16():
        raise UserError("--precision bfloat16: this processor does not multiply it; take float32")
    if precision != "auto":
        return precision
    if device.type != "cpu":
        return "float16"
    return "bfloat16" if spec.bfloat16 and runtime == "openvino" and multiplies_bfloat16() else "float32"


def multiplies_bfloat16() -> bool:
    """Whether this processor does, as OpenVINO knows it (AVX512-BF16, AMX)."""
    without_telemetry()
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def without_telemetry() -> None:
    """Before OpenVINO or NNCF is imported: both would tell their makers over the network how they are used.

    They go on without the package that does it, as where it is not installed.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # Python's word for "not to be had"
