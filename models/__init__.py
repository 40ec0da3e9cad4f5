"""Detectors, their losses, and XEL. Pure PyTorch: tensors in, tensors out; no files, no videos, no printing."""

from .detector import Bags, Detector, DetectorLoss
from .mil import MIL
from .xel import XEL, HardInstanceBank, MarginSchedule, dynamic_margin_loss, validation_loss

__all__ = [
    "DETECTORS",
    "MIL",
    "XEL",
    "Bags",
    "Detector",
    "DetectorLoss",
    "HardInstanceBank",
    "MarginSchedule",
    "dynamic_margin_loss",
    "validation_loss",
]

DETECTORS: dict[str, type[Detector]] = {"mil": MIL}
