"""The scorer that MIL and SRF share: three linear layers from a clip's features to its score."""

from __future__ import annotations

from torch import nn

HIDDEN_UNITS = 512


def three_layer_scorer(feature_dim: int, dropout: float) -> nn.Sequential:
    """``(…, F) -> (…, 1)`` in [0, 1]; only the first layer has a ReLU, as in the published network.

    Layers 0 and 1 give the hidden activations ``(…, 512)``, layer 2 is their dropout. Weights are Xavier-normal.

    Source: Sultani et al., CVPR 2018; Zaheer et al., IEEE SPL 2020.
    """
    scorer = nn.Sequential(
        nn.Linear(feature_dim, HIDDEN_UNITS),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(HIDDEN_UNITS, 32),
        nn.Dropout(dropout),
        nn.Linear(32, 1),
        nn.Sigmoid(),
    )
    for layer in scorer:
        if isinstance(layer, nn.Linear):
            nn.init.xavier_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
    return scorer
