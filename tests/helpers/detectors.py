"""A detector with context that is simple enough to be followed by hand."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from xelvad.models import Bags, DetectorLoss
from xelvad.models.clipwise.mil import ranking_loss
from xelvad.models.context import ContextDetector, in_groups


class Neighbours(ContextDetector):
    """The sigmoid of a clip's first feature less the mean of its video's, disturbed by dropout while training."""

    name, title, context = "neighbours", "Neighbours", 4

    def __init__(self, feature_dim: int = 2) -> None:
        super().__init__()
        self.feature_dim = feature_dim
        self.weight, self.dropout = nn.Parameter(torch.ones(())), nn.Dropout(0.5)

    def score_videos(self, videos: Tensor) -> Tensor:
        first = self.dropout(videos)[..., 0]
        return (self.weight * (first - first.mean(dim=1, keepdim=True))).sigmoid()

    def loss(self, bags: Bags) -> DetectorLoss:
        (scores,) = in_groups(lambda videos: (self.score_videos(videos),), bags.clips, bags.abnormal + bags.normal)
        abnormal, normal = bags.split(scores)
        return DetectorLoss.of({"ranking": ranking_loss(abnormal, normal)}, abnormal, normal)


def sigmoid_less_mean(first: NDArray[Any]) -> NDArray[Any]:
    """What `Neighbours` scores without dropout, from the first features ``(…, T)``."""
    scores: NDArray[Any] = 1 / (1 + np.exp(-(first - first.mean(axis=-1, keepdims=True))))
    return scores
