"""Detectors, their losses, and XEL. Pure PyTorch: tensors in, tensors out; no files, no videos, no printing."""

from .bank import HardInstanceBank
from .catalogue import DETECTORS, FRAMEWISE, new_detector
from .clipwise.arnet import ARNet
from .clipwise.clustering import two_means
from .clipwise.mil import MIL
from .clipwise.ngmil import NGMIL
from .clipwise.srf import SRF
from .clipwise.svm import SVM
from .clipwise.zhong import GCNCleaner
from .contextual.bnwvad import BNWVAD
from .contextual.claws import CLAWS
from .contextual.mgfn import MGFN
from .contextual.rtfm import RTFM
from .contextual.urdmu import URDMU
from .detector import Bags, Detector, DetectorLoss, LearningDetector, hardest, highest
from .framewise.autoencoder import ConvAutoencoder
from .framewise.combinations import SparseCombinations
from .framewise.detector import FramewiseDetector
from .xel import XEL, MarginSchedule, dynamic_margin_loss, validation_loss

__all__ = [
    "BNWVAD",
    "CLAWS",
    "DETECTORS",
    "FRAMEWISE",
    "MGFN",
    "MIL",
    "NGMIL",
    "RTFM",
    "SRF",
    "SVM",
    "URDMU",
    "XEL",
    "ARNet",
    "Bags",
    "ConvAutoencoder",
    "Detector",
    "DetectorLoss",
    "FramewiseDetector",
    "GCNCleaner",
    "HardInstanceBank",
    "LearningDetector",
    "MarginSchedule",
    "SparseCombinations",
    "dynamic_margin_loss",
    "hardest",
    "highest",
    "new_detector",
    "two_means",
    "validation_loss",
]
