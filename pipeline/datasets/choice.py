"""Which data set is meant: the options of the command line, and the reader that goes with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ...errors import UserError
from ..videos.sources import find_videos
from .dataset import Dataset
from .location import check_clear, locate
from .manifest import read_manifest
from .shanghaitech import read_shanghaitech
from .ucf_crime import read_ucf_crime
from .xd_violence import read_xd_violence

OWN = "manifest"


@dataclass(frozen=True)
class PublishedDataset:
    """A data set with official lists.

    Attributes:
        needs: the option without which it cannot be read.
        because: what that option names.
        read: its reader: takes the path that it needs, and that of the other option, "annotations" or "videos", if it
            is given.
    """

    needs: Literal["annotations", "videos"]
    because: str
    read: Callable[[Path, Path | None], Dataset]


LISTS = "the folder with its official lists"

# A data set that stands here is an option of all commands.
PUBLISHED: dict[str, PublishedDataset] = {
    "ucf-crime": PublishedDataset("annotations", LISTS, lambda lists, _: read_ucf_crime(lists)),
    "shanghaitech": PublishedDataset("annotations", LISTS, lambda lists, _: read_shanghaitech(lists)),
    "xd-violence": PublishedDataset("videos", "the labels are in the names of the videos", read_xd_violence),
}

NAMES = (OWN, *PUBLISHED)

if TYPE_CHECKING:
    DatasetName = str
else:
    DatasetName = Literal[NAMES]


@dataclass(frozen=True)
class DatasetChoice:
    """A data set, before it is read.

    Attributes:
        dataset: manifest: one's own videos; or a published data set.
        manifest: CSV file: video, split or fold, label, frames, spans; of a manifest.
        annotations: folder with the official lists; of a published data set.
        videos: folder with the videos, in any of the common layouts; needed for xd-violence, else to show them.
    """

    dataset: DatasetName = OWN
    manifest: Path | None = None
    annotations: Path | None = None
    videos: Path | None = None

    def __post_init__(self) -> None:
        if self.dataset == OWN:
            if self.manifest is None:
                names = ", ".join(PUBLISHED)
                raise UserError(f"--manifest is missing: the CSV file that describes the videos (or --dataset {names})")
            if self.annotations is not None:
                raise UserError("--annotations are those of a published data set: say which by --dataset")
            return
        if self.dataset not in PUBLISHED:
            raise UserError(f"there is no data set {self.dataset!r}; known: {', '.join(NAMES)}")
        if self.manifest is not None:
            raise UserError(f"--manifest describes one's own videos and --dataset {self.dataset} is another: leave one")
        published = PUBLISHED[self.dataset]
        if getattr(self, published.needs) is None:
            raise UserError(f"--dataset {self.dataset} needs --{published.needs}: {published.because}")

    @property
    def options(self) -> list[str]:
        """The options that make this choice."""
        given = {"--manifest": self.manifest, "--annotations": self.annotations, "--videos": self.videos}
        words = [] if self.dataset == OWN else ["--dataset", self.dataset]
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
        if self.manifest is not None:
            return read_manifest(self.manifest, test_fold)
        if test_fold is not None:
            raise UserError(f"--test_fold {test_fold}: {self.dataset} has a split and no folds; leave it out")
        published = PUBLISHED[self.dataset]
        others = {"annotations": self.videos, "videos": self.annotations}
        return published.read(getattr(self, published.needs), others[published.needs])
