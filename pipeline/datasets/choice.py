"""Which data set is meant: the options of the command line, and the reader that goes with them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ...errors import UserError
from ..videos.sources import find_videos
from .dataset import Dataset
from .location import check_clear, locate
from .manifest import read_manifest
from .shanghaitech import read_shanghaitech
from .ucf_crime import read_ucf_crime
from .xd_violence import read_xd_violence

DatasetName = Literal["manifest", "ucf-crime", "shanghaitech", "xd-violence"]


@dataclass(frozen=True)
class DatasetChoice:
    """A data set, before it is read.

    Attributes:
        dataset: manifest: one's own videos; or a published data set.
        manifest: CSV file: video, split or fold, label, frames, spans; of a manifest.
        annotations: folder with the official lists; of a published data set.
        videos: folder with the videos, in any of the common layouts; needed for xd-violence, else to show them.
    """

    dataset: DatasetName = "manifest"
    manifest: Path | None = None
    annotations: Path | None = None
    videos: Path | None = None

    def __post_init__(self) -> None:
        own = self.dataset == "manifest"
        if own and self.manifest is None:
            raise UserError("--manifest is missing: the CSV file that describes the videos (or --dataset ucf-crime, …)")
        if own and self.annotations is not None:
            raise UserError("--annotations are those of a published data set: say which by --dataset")
        if not own and self.manifest is not None:
            raise UserError(f"--manifest describes one's own videos and --dataset {self.dataset} is another: leave one")
        if self.dataset in ("ucf-crime", "shanghaitech") and self.annotations is None:
            raise UserError(f"--dataset {self.dataset} needs --annotations: the folder with its official lists")
        if self.dataset == "xd-violence" and self.videos is None:
            raise UserError("--dataset xd-violence needs --videos: the labels are in the names of the videos")

    @property
    def options(self) -> list[str]:
        """The options that make this choice."""
        given = {"--manifest": self.manifest, "--annotations": self.annotations, "--videos": self.videos}
        words = [] if self.dataset == "manifest" else ["--dataset", self.dataset]
        return words + [word for option, path in given.items() if path is not None for word in (option, str(path))]

    def read(self, test_fold: str | None = None) -> Dataset:
        """Read the labels, and find the videos if their folder is given.

        Raises:
            UserError: as the readers, a fold of a data set with a split, or videos that cannot be told apart.
        """
        dataset = self.labels(test_fold)
        if self.videos is None:
            return dataset
        location = locate([video.name for video in dataset.videos], find_videos([self.videos]))
        check_clear(location)
        return replace(dataset, root=self.videos, paths=location.found)

    def labels(self, test_fold: str | None = None) -> Dataset:
        """Read the labels alone.

        Raises:
            UserError: as `read`.
        """
        if self.dataset != "manifest" and test_fold is not None:
            raise UserError(f"--test_fold {test_fold}: {self.dataset} has a split and no folds; leave it out")
        if self.dataset == "ucf-crime" and self.annotations is not None:
            return read_ucf_crime(self.annotations)
        if self.dataset == "shanghaitech" and self.annotations is not None:
            return read_shanghaitech(self.annotations)
        if self.dataset == "xd-violence" and self.videos is not None:
            return read_xd_violence(self.videos, self.annotations)
        assert self.manifest is not None
        return read_manifest(self.manifest, test_fold)
