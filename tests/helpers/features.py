"""A small synthetic data set of feature files: quick to learn from, made through the project's own cache."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xelvad import __version__
from xelvad.extractors import EXTRACTORS
from xelvad.pipeline.features.sidecar import Sidecar, Timeline
from xelvad.pipeline.features.store import FeatureStore
from xelvad.pipeline.videos.clips import Clipping
from xelvad.pipeline.videos.identity import digest, stamp

FEATURE_DIM = 16
FINGERPRINT = EXTRACTORS["i3d-rgb"].fingerprint("of the synthetic features")
SIDECAR = Sidecar(
    video="",
    video_bytes=1,
    video_modified=1,
    video_sha256="",
    frames=1,
    declared_frames=1,
    salvaged_frames=0,
    timeline=Timeline(0.0, 25.0),
    clipping=Clipping(),
    extractor="i3d-rgb",
    fingerprint=FINGERPRINT,
    feature_dim=FEATURE_DIM,
    decoder="none",
    version=__version__,
)


def write_features(root: Path, name: str, features: NDArray[np.float32], frames: int, **changes: object) -> None:
    """File ``features``, ``(clips, F)`` or ``(clips, crops, F)``, as those of a video of ``frames`` frames."""
    crops = features.shape[1] if features.ndim == 3 else None
    sidecar = replace(
        SIDECAR,
        video=name,
        video_sha256=f"digest of {name}",
        frames=frames,
        feature_dim=features.shape[-1],
        crops=crops,
        **changes,
    )
    with FeatureStore(root, "i3d-rgb").write(name, features.shape[-1], crops) as writer:
        writer.append(features)
        writer.finish(sidecar)


def file_features(root: Path, name: str, video: Path | None, clips: int = 5, **changes: object) -> Path:
    """File some features as those of a file that passes for a video; returns the array's path."""
    size, modified = stamp(video) if video is not None else (1, 1)
    rng = np.random.default_rng(list(name.encode()))
    sidecar = replace(
        SIDECAR,
        video=name,
        video_bytes=size,
        video_modified=modified,
        video_sha256=digest(video) if video is not None else "",
        frames=16 * clips,
    )
    sidecar = replace(sidecar, **changes)
    store = FeatureStore(root, sidecar.extractor)
    with store.write(name, FEATURE_DIM, sidecar.crops) as writer:
        row = (FEATURE_DIM,) if sidecar.crops is None else (sidecar.crops, FEATURE_DIM)
        writer.append(rng.normal(size=(clips, *row)).astype(np.float32))
        writer.finish(sidecar)
    return store.array_path(name)


def write_dataset(folder: Path, videos: int = 12, seed: int = 0) -> tuple[Path, Path]:
    """A manifest and a features folder: a third of the videos tests, every second one abnormal.

    Anomalous clips are shifted along one direction; lengths differ, and last clips are incomplete.
    """
    rng = np.random.default_rng(seed)
    direction = rng.normal(size=FEATURE_DIM)
    lines = ["video,split,label,frames,anomalous_frames_half_open"]
    for index in range(videos):
        name, abnormal = f"video_{index:02}.mp4", index % 2 == 1
        frames = int(rng.integers(150, 400))
        clips = -(-frames // 16)
        features = rng.normal(size=(clips, FEATURE_DIM))
        start = int(rng.integers(1, clips // 2))
        if abnormal:
            features[start : start + 3] += 2 * direction
        write_features(folder / "features", name, features.astype(np.float32), frames)
        spans = f"{16 * start}-{16 * (start + 3)}" if abnormal else ""
        lines.append(f"{name},{'test' if index < videos // 3 else 'train'},{int(abnormal)},{frames},{spans}")
    manifest = folder / "labels.csv"
    manifest.write_text("\n".join(lines) + "\n")
    return manifest, folder / "features"
