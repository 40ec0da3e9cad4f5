"""Detectors, their losses, and XEL. Pure PyTorch: tensors in, tensors out; no files, no videos, no printing."""

from .bank import HardInstanceBank
from .clipwise.arnet import ARNet
from .clipwise.clustering import two_means
from .clipwise.mil import MIL
from .clipwise.ngmil import NGMIL
from .clipwise.srf import SRF
from .clipwise.svm import SVM
from .contextual.bnwvad import BNWVAD
from .contextual.claws import CLAWS
from .contextual.rtfm import RTFM
from .contextual.urdmu import URDMU
from .detector import Bags, Detector, DetectorLoss, LearningDetector, hardest, highest
from .xel import XEL, MarginSchedule, dynamic_margin_loss, validation_loss

__all__ = [
    "BNWVAD",
    "CLAWS",
    "DETECTORS",
    "MIL",
    "NGMIL",
    "RTFM",
    "SRF",
    "SVM",
    "URDMU",
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
DETECTORS: dict[str, type[Detector]] = {
    kind.name: kind
    for kind in (
        MIL,
        SRF,
        ARNet,
        CLAWS,
        RTFM,
        NGMIL,
        URDMU,
        BNWVAD,
        SVM,
    )
}
