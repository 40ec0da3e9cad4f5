"""The catalogue: which detectors there are, and how one is made by its name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from .clipwise.arnet import ARNet
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
from .detector import Detector
from .framewise.autoencoder import ConvAutoencoder
from .framewise.combinations import SparseCombinations
from .framewise.detector import FramewiseDetector

# A detector that stands here is known everywhere, by its name and its title.
DETECTORS: dict[str, type[Detector]] = {
    kind.name: kind
    for kind in (
        MIL,
        SRF,
        ARNet,
        GCNCleaner,
        CLAWS,
        RTFM,
        NGMIL,
        URDMU,
        BNWVAD,
        MGFN,
        SVM,
    )
}

# Those that learn from the frames of normal videos, and are built from nothing.
FRAMEWISE: dict[str, type[FramewiseDetector]] = {kind.name: kind for kind in (SparseCombinations, ConvAutoencoder)}


def new_detector(name: str, feature_dim: int, options: Mapping[str, object] = MappingProxyType({})) -> Detector:
    """A detector of a known name, with random weights, or with nothing learned.

    Args:
        name: a key of `DETECTORS` or `FRAMEWISE`.
        feature_dim: F; 1 of a frame-by-frame one, whose errors are all that is scored.
        options: of its class, by name.

    Raises:
        ValueError: F is not 1, or an option is out of range.
        TypeError: there is no such option.
    """
    make: Callable[..., Detector]
    if name in FRAMEWISE:
        if feature_dim != 1:
            raise ValueError(f"{name} gives a frame 1 number, not {feature_dim}")
        make = FRAMEWISE[name]
    else:
        make = partial(DETECTORS[name], feature_dim)
    known = inspect.signature(make).parameters
    unknown = sorted(options.keys() - known)
    if unknown:
        raise TypeError(f"{name} has no option {', '.join(unknown)}; known: {', '.join(known)}")
    return make(**options)
