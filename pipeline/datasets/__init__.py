"""Data sets: videos, labels, splits. Each source of annotations has one module with a reader that gives a `Dataset`."""

from .choice import DatasetChoice
from .dataset import MAX_FRAMES, Counts, Dataset, LabelledVideo, Official, count, frame_truth, spans_of
from .location import Location, check_clear, locate
from .manifest import any_fold, folds_in, read_manifest
from .shanghaitech import read_shanghaitech
from .ucf_crime import read_ucf_crime
from .xd_violence import read_xd_violence

__all__ = [
    "MAX_FRAMES",
    "Counts",
    "Dataset",
    "DatasetChoice",
    "LabelledVideo",
    "Location",
    "Official",
    "any_fold",
    "check_clear",
    "count",
    "folds_in",
    "frame_truth",
    "locate",
    "read_manifest",
    "read_shanghaitech",
    "read_ucf_crime",
    "read_xd_violence",
    "spans_of",
]
