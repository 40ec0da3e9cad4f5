"""Makes ``of_0_1/``: features, runs and scores as xelvad 0.1.0 wrote them in November 2026, before its modules moved.

    git checkout 84d006d && PYTHONPATH=FOLDER_OF_THE_CHECKOUT python make_of_0_1.py OUT

What was extracted and trained then must be read and scored alike by every later version: that is what they are for.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from xelvad.pipeline.cache import FeatureStore
from xelvad.pipeline.clips import Clipping
from xelvad.pipeline.datasets import read_manifest
from xelvad.pipeline.evaluation import evaluate
from xelvad.pipeline.runs import load_run
from xelvad.pipeline.settings import TrainingConfig, XELConfig
from xelvad.pipeline.sidecar import Sidecar, Timeline
from xelvad.pipeline.training import train

DIMENSIONS, CLIPS = 8, 6
RUNS = {"MIL": ("mil", "off"), "SRF+XEL": ("srf", "epoch"), "AR-Net+XEL": ("ar-net", "batch")}


def main(out: Path) -> None:
    rng = np.random.default_rng(0)
    rows, store = ["video,fold,label,frames,anomalous_frames_half_open"], FeatureStore(out / "features", "made-up")
    for number in range(10):
        name, abnormal, frames = f"place {number % 2}/{number}.mp4", number % 2, 16 * CLIPS - 5
        features = rng.normal(size=(CLIPS, DIMENSIONS)).astype(np.float32)
        features[2:4] += 3 * abnormal
        with store.write(name, DIMENSIONS) as writer:
            writer.append(features)
            writer.finish(
                Sidecar(
                    video=name,
                    video_bytes=1,
                    video_modified=1,
                    video_sha256=f"{number:064x}",
                    frames=frames,
                    declared_frames=frames,
                    salvaged_frames=0,
                    timeline=Timeline(0.0, 25.0),
                    clipping=Clipping(),
                    extractor="made-up",
                    fingerprint="made-up",
                    feature_dim=DIMENSIONS,
                    decoder="none",
                    version="0.1.0",
                )
            )
        spans = "32-64" if abnormal else ""
        rows.append(f"{name},{'train' if number < 6 else 'test'},{abnormal},{frames},{spans}")
    (out / "annotations.csv").write_text("\n".join(rows) + "\n")
    dataset = read_manifest(out / "annotations.csv", test_fold="test")
    scores = {}
    for label, (detector, mode) in RUNS.items():
        config = TrainingConfig(detector=detector, extractor="made-up", iterations=30, device="cpu", validation=0.3)
        train(dataset, out / "features", out / label, replace(config, xel=XELConfig(mode=mode)))
        run = load_run(out / label)
        for result in evaluate(run, dataset, out / "features").scores:
            scores[f"{label}|{result.name}"] = result.scores
    np.savez_compressed(out / "scores.npz", **scores)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
