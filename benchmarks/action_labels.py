"""What I3D calls the people of real CCTV: the Kinetics labels of the CCTV montage, and whether they tell fights.

    XELVAD_SHARED=/path/to/data python benchmarks/action_labels.py --features DIR

The labels come from the features themselves: the last layer of the network is linear, and so is the mean over time
before it. Six classes of violence, named beforehand, are summed to a score for "fight" of every clip.
"""

from __future__ import annotations

import argparse
import datetime
import os
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from results import write_section
from sklearn.metrics import roc_auc_score
from torchvision.models.video import R3D_18_Weights

from xelvad import __version__
from xelvad.extractors import create_extractor
from xelvad.extractors.i3d import InceptionI3D
from xelvad.pipeline.datasets.dataset import LabelledVideo
from xelvad.pipeline.datasets.manifest import any_fold, read_manifest
from xelvad.pipeline.features.config import ExtractionConfig
from xelvad.pipeline.features.extraction import extract
from xelvad.pipeline.features.store import FeatureStore
from xelvad.pipeline.videos.sources import find_videos

ROOT = Path(__file__).resolve().parent.parent
EXTRACTOR = "i3d-rgb"
VIOLENCE = ("punching person (boxing)", "wrestling", "headbutting", "slapping", "drop kicking", "side kick")
CLIP = 16  # frames
LISTED = 5
SHOWN = 10  # videos in the table


class Labels:
    """The Kinetics-400 classes of I3D, from its features."""

    def __init__(self) -> None:
        network = create_extractor(EXTRACTOR).network[1]
        assert isinstance(network, InceptionI3D)
        weight, bias = (parameter.detach() for parameter in network.logits.parameters())
        self.weight, self.bias = weight.flatten(1).numpy(), bias.numpy()  # (400, 1024), (400,)
        self.names: list[str] = R3D_18_Weights.KINETICS400_V1.meta["categories"]

    def probabilities(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """``(clips, 1024) -> (clips, 400)``."""
        logits = torch.from_numpy(features @ self.weight.T + self.bias).double()
        return logits.softmax(dim=1).numpy()

    def columns(self, names: tuple[str, ...]) -> list[int]:
        return [self.names.index(name) for name in names]


def anomalous(video: LabelledVideo, clips: int) -> NDArray[np.bool_]:
    """Of each clip, whether most of its frames are anomalous."""
    truth = np.zeros(clips * CLIP)
    for start, stop in video.spans or ():
        truth[start:stop] = 1
    return truth.reshape(clips, CLIP).mean(axis=1) > 0.5


def table(labels: Labels, found: dict[str, NDArray[np.float64]]) -> list[str]:
    """The clip of each video that looks most like a fight, for the videos where one does most: its first labels."""
    violence = labels.columns(VIOLENCE)
    clips = {name: int(p[:, violence].sum(axis=1).argmax()) for name, p in found.items()}
    order = sorted(found, key=lambda name: -float(found[name][clips[name], violence].sum()))
    rows = ["| video | clip | labels |", "|---|---|---|"]
    for name in order[:SHOWN]:
        p = found[name][clips[name]]
        first = ", ".join(f"{labels.names[n]} {100 * p[n]:.0f} %" for n in np.argsort(-p)[:LISTED])
        rows.append(f"| {Path(name).stem} | {clips[name]} | {first} |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--features", type=Path, required=True, help="features folder, filled on the first run")
    arguments = parser.parse_args()
    data = Path(os.environ.get("XELVAD_SHARED", ROOT.parent / "shared" / "data")) / "cctv_montage"
    extract(find_videos([data]), arguments.features, ExtractionConfig(extractor=(EXTRACTOR,)))
    manifest = data / "annotations.csv"
    videos = read_manifest(manifest, any_fold(manifest)).videos
    store, labels = FeatureStore(arguments.features, EXTRACTOR), Labels()
    found = {
        video.name: labels.probabilities(features.read(slice(None)))
        for video, features in zip(videos, store.read_all([video.name for video in videos]), strict=True)
    }
    truth = np.concatenate([anomalous(video, len(found[video.name])) for video in videos])
    normal = np.concatenate([np.full(len(found[video.name]), not video.abnormal) for video in videos])
    scores = np.concatenate([found[video.name] for video in videos])[:, labels.columns(VIOLENCE)]
    judged = truth | normal  # the quiet parts of abnormal videos are neither
    aucs = {
        name: 100 * roc_auc_score(truth[judged], column[judged])
        for name, column in (("all six", scores.sum(axis=1)), *zip(VIOLENCE, scores.T, strict=True))
    }
    mean = [100 * scores.sum(axis=1)[which].mean() for which in (truth, normal)]
    fights = {video.name: found[video.name][anomalous(video, len(found[video.name]))] for video in videos}
    rows = table(labels, {name: clips for name, clips in fights.items() if len(clips)})
    print(*rows, sep="\n")
    write_section(
        "Kinetics labels of real CCTV",
        [
            f"I3D-RGB's own Kinetics-400 labels on the CCTV montage: {truth.sum()} anomalous clips, {normal.sum()} of",
            "normal videos. Six classes of violence, named beforehand, have together a probability of",
            f"{mean[0]:.1f} % in the mean of the anomalous and {mean[1]:.1f} % in that of the normal clips. AUC, as a",
            "score for anomalous: " + ", ".join(f"{name} {auc:.1f} %" for name, auc in aucs.items()) + ".",
            "",
            f"The {SHOWN} anomalous clips, one to a video and counted from its first, that look most like violence:",
            "",
            *rows,
            "",
            f"`python benchmarks/action_labels.py --features DIR`, {datetime.date.today()}, xelvad {__version__}, "
            f"torch {torch.__version__}.",
        ],
    )


if __name__ == "__main__":
    main()
