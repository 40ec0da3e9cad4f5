"""Data sets: videos, labels, splits. Each source of annotations has one module with a reader that gives a `Dataset`."""

from .dataset import Dataset, LabelledVideo, frame_truth
from .manifest import read_manifest

__all__ = ["Dataset", "LabelledVideo", "frame_truth", "read_manifest"]
