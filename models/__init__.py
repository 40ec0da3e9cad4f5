"""Detectors, their losses, and XEL. Pure PyTorch: tensors in, tensors out; no files, no videos, no printing."""

from .bank import HardInstanceBank
from .clipwise.arnet import ARNet
from .clipwise.clustering import two_means
from .clipwise.mil import MIL
from .clipwise.srf import SRF
from .clipwise.svm import SVM
from .contextual.mgfn import MGFN
from .contextual.rtfm import RTFM
from .detector import Bags, Detector, DetectorLoss, LearningDetector, hardest, highest
from .xel import XEL, MarginSchedule, dynamic_margin_loss, validation_loss

__all__ = [
    "DETECTORS",
    "MGFN",
    "MIL",
    "RTFM",
    "SRF",
    "SVM",
    "XEL",
    "ARNet",
    "Bags",
    "Detector",
    "DetectorLoss",
    "HardInstanceBank",
    "LearningDetector",
    "MarginSchedule",
    "dynamic_margin_loss",
    "hardest",
    "highest",
    "two_means",
    "validation_loss",
]

# A detector that stands here is known everywhere, by its name and its title.
DETECTORS: dict[str, type[Detector]] = {kind.name: kind for kind in (MIL, SRF, ARNet, RTFM, MGFN, SVM)}
