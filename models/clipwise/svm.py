"""SVM: the baseline of the papers' tables, a linear support vector machine on video-level means.

Sultani et al., CVPR 2018, section 5.3. It is fitted elsewhere, in one go; here it scores.
"""

from __future__ import annotations

from torch import Tensor, nn

from ..detector import Detector


class SVM(Detector):
    """A hyperplane and a sigmoid: the probability, by Platt's scaling, that a clip lies on the abnormal side."""

    name, title = "svm", "SVM"

    def __init__(self, feature_dim: int) -> None:
        super().__init__()
        self.feature_dim = feature_dim
        self.plane = nn.Linear(feature_dim, 1)

    def score(self, features: Tensor) -> Tensor:
        """``(…, F) -> (…)`` in [0, 1]."""
        return self.plane(features).squeeze(-1).sigmoid()
