"""xelvad: weakly supervised video anomaly detection with cross-epoch learning (XEL).

The repository root is this package. Data takes one way through it::

    raw video -> clips -> features -> bags -> detector -> clip scores -> frame scores -> metrics, report
      pipeline/    extractors/                models/                                     pipeline/

What a researcher needs is imported from here: the detectors and XEL, to train them in loops of one's own; extractors by
name; trained runs, and scores for new videos; metrics. The whole way is the command `xelvad`.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError as _PackageNotFoundError
from importlib.metadata import version as _version

try:
    __version__ = _version("xelvad")
except _PackageNotFoundError:  # it runs from its sources, where nothing was installed
    __version__ = "of the sources"

# Public names are imported on first use, so that `import xelvad` does not wait for torch.
_PUBLIC = {
    **dict.fromkeys(["MIL", "SRF", "XEL", "ARNet", "Bags", "HardInstanceBank", "MarginSchedule", "hardest"], ".models"),
    "create_extractor": ".extractors",
    **dict.fromkeys(["load_run", "Run"], ".pipeline.scoring.runs"),
    **dict.fromkeys(["score_video", "FrameScores"], ".pipeline.scoring.scoring"),
    **dict.fromkeys(["frame_metrics", "ScoredVideo"], ".pipeline.evaluation.metrics"),
}
__all__ = [
    "MIL",
    "SRF",
    "XEL",
    "ARNet",
    "Bags",
    "FrameScores",
    "HardInstanceBank",
    "MarginSchedule",
    "Run",
    "ScoredVideo",
    "__version__",
    "create_extractor",
    "frame_metrics",
    "hardest",
    "load_run",
    "score_video",
]


def __getattr__(name: str) -> object:
    """Import a public name on first use (PEP 562)."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'xelvad' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name], __name__), name)


def __dir__() -> list[str]:
    """What there is to complete."""
    return sorted(__all__)
