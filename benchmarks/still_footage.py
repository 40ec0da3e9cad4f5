"""What `xelvad extract --reuse-static` saves and costs: on real CCTV, and on a long quiet watch of a street.

    XELVAD_SHARED=/path/to/data python benchmarks/still_footage.py --features DIR --seeds 3

Clips that are still by a tolerance take the features of the one before, as extraction would do it, and MIL learns from
these features and is tested on them, fold by fold: on the CCTV montage, and on drawn videos of a street whose first
three quarters are a still picture and a sensor's noise. Time is measured on a long watch of such a street, which is
empty for nine tenths.
"""

from __future__ import annotations

import argparse
import datetime
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path

import av
import numpy as np
import torch
from numpy.typing import NDArray
from results import write_section

from xelvad import __version__
from xelvad.pipeline.experiments.ablation.ablate import cross_validate
from xelvad.pipeline.features.config import ExtractionConfig
from xelvad.pipeline.features.extraction import LARGEST_SHORT_SIDE, extract
from xelvad.pipeline.features.store import FeatureStore
from xelvad.pipeline.footage.recording import ANOMALIES, film
from xelvad.pipeline.footage.scene import Picture
from xelvad.pipeline.training.recipes import load_recipe
from xelvad.pipeline.videos.clips import Clipping
from xelvad.pipeline.videos.sources import VideoSource, find_videos
from xelvad.pipeline.videos.stillness import Stillness
from xelvad.pipeline.videos.stream import Clip, ClipReader

ROOT = Path(__file__).resolve().parent.parent
EXTRACTOR = "i3d-rgb"
TOLERANCES = (2.0, 8.0)
NOISE = 2.6  # grey levels of the sensor, per pixel, as in `footage.Sensor`
BUSY, QUIET = 250, 2250  # frames of each of the two stretches that the watch consists of, over and over
ROUNDS = 2
VIDEOS, FOLDS = 24, 4  # drawn videos to learn from; each kind of anomaly is in every fold
STILL, MOVING = 480, 160  # frames of the stretches that each of these consists of


def still_clips(sources: list[VideoSource], tolerance: float) -> list[list[bool]]:
    """Of each video, which clips are still."""
    found: list[list[bool]] = [[] for _ in sources]
    reader = ClipReader(
        sources, Clipping(), LARGEST_SHORT_SIDE, lambda number: Stillness(tolerance).is_still, workers=2
    )
    with closing(reader.events()) as events:
        for event in events:
            if isinstance(event, Clip):
                found[event.number].append(event.prepared)
    return found


def reused(features: NDArray[np.float32], still: list[bool]) -> NDArray[np.float32]:
    """Features as extraction with reuse makes them."""
    source = np.maximum.accumulate(np.where(still, 0, np.arange(len(still))))
    return features[source]


def relative_errors(exact: NDArray[np.float32], found: NDArray[np.float32]) -> NDArray[np.float64]:
    """Of each clip, the length of the difference by that of the exact features."""
    return np.linalg.norm(found - exact, axis=1) / np.linalg.norm(exact, axis=1)


def changed_features(store: FeatureStore, sources: list[VideoSource], tolerance: float, folder: Path) -> list[float]:
    """Write a data set's features as extraction with reuse makes them; returns the errors of what was reused."""
    still = still_clips(sources, tolerance) if tolerance else [[] for _ in sources]
    errors: list[float] = []
    changed = FeatureStore(folder, EXTRACTOR)
    for source, flags in zip(sources, still, strict=True):
        exact = store.read(source.name)
        array = exact.read(slice(None))
        made = reused(array, flags) if tolerance else array
        errors += relative_errors(array, made)[np.flatnonzero(flags)].tolist()
        with changed.write(source.name, array.shape[1]) as writer:
            writer.append(made)
            writer.finish(exact.sidecar)
    return errors


def mean_fold_auc(manifest: Path, features: Path, runs: Path, seed: int) -> float:
    torch.set_num_threads(1)
    (outcome,) = cross_validate(manifest, features, runs, replace(load_recipe("general/mil"), seed=seed))
    return 100 * (outcome.mean_fold_auc or np.nan)


def learning_row(data: Path, features: Path, tolerance: float, seeds: int) -> str:
    """Share reused, errors of what was reused, and the AUC of what is learnt from it, where it differs at all."""
    store, sources = FeatureStore(features, EXTRACTOR), find_videos([data])
    clips = sum(store.read(source.name).clips for source in sources)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        errors = changed_features(store, sources, tolerance, folder)
        share = f"| {tolerance:g} | {100 * len(errors) / clips:.2f} "
        if tolerance and not errors:
            return f"{share}| – | – | as without |"
        error = f"{100 * np.mean(errors):.1f} | {100 * np.max(errors):.1f}" if errors else "– | –"
        if not seeds:
            return f"{share}| {error} | not trained |"
        task = partial(mean_fold_auc, data / "annotations.csv", folder)
        with ProcessPoolExecutor(2) as pool:
            aucs = list(pool.map(task, [folder / f"runs-{seed}" for seed in range(seeds)], range(seeds)))
    return f"{share}| {error} | {np.mean(aucs):.2f} ± {np.std(aucs, ddof=1):.2f} |"


def encode(path: Path, pictures: Iterable[Picture]) -> None:
    """Write an H.264 video of 25 frames a second, with all of the codec's shortcuts."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "23", "preset": "veryfast"})
        stream.pix_fmt = "yuv420p"
        for number, picture in enumerate(pictures):
            if not number:
                stream.height, stream.width = picture.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def watched(picture: Picture, frames: int, rng: np.random.Generator) -> Iterator[Picture]:
    """So many frames of a scene in which nothing moves, through a sensor with noise."""
    for _ in range(frames):
        noisy = picture + rng.normal(0, NOISE, (*picture.shape[:2], 1)).astype(np.float32)
        yield noisy.clip(0, 255).astype(np.uint8)


def draw_watch(path: Path) -> int:
    """A street that is busy for a while and then empty for long, over and over; returns how many frames it has."""
    busy = list(film(frames=BUSY, anomaly=None, seed=0).pictures)
    rng = np.random.default_rng(0)
    rounds = (chain(busy, watched(busy[-1], QUIET, rng)) for _ in range(ROUNDS))
    encode(path, chain.from_iterable(rounds))
    return ROUNDS * (BUSY + QUIET)


def draw_quiet_videos(folder: Path) -> None:
    """Videos in `FOLDS` folds, half of them abnormal, which begin with a long still stretch; and their manifest."""
    folder.mkdir(parents=True)
    rows = ["video,fold,label,frames,anomalous_frames_half_open"]
    for number in range(VIDEOS):
        kind = ANOMALIES[number // 2 % len(ANOMALIES)] if number % 2 else None
        made = film(frames=MOVING, anomaly=kind, seed=number)
        first = next(made.pictures)
        still = watched(first, STILL - 1, np.random.default_rng(number))
        name = f"street_{number:02}.mp4"
        encode(folder / name, chain([first], still, made.pictures))
        spans = " ".join(f"{STILL - 1 + start}-{STILL - 1 + stop}" for start, stop in made.spans)
        rows.append(f"{name},fold{number // 2 % FOLDS},{number % 2},{STILL + MOVING - 1},{spans}")
    (folder / "annotations.csv").write_text("\n".join(rows) + "\n")


def watch_rows(video: Path, folder: Path) -> list[str]:
    """Seconds, share reused and error for every tolerance."""
    rows, exact, whole = [], np.empty(0, np.float32), 0.0
    for tolerance in (0.0, *TOLERANCES):
        features = folder / f"features-{tolerance}"
        began = time.perf_counter()
        extract(find_videos([video]), features, ExtractionConfig(extractor=(EXTRACTOR,), reuse_static=tolerance))
        took = time.perf_counter() - began
        found = FeatureStore(features, EXTRACTOR).read(video.name)
        array = found.read(slice(None))
        if not tolerance:
            exact, whole = array, took
            rows.append(f"| 0 | {took:.0f} | 1.0 | 0.0 | – | – |")
            continue
        errors = relative_errors(exact, array)[list(found.sidecar.reused)]
        mean, most = (100 * errors.mean(), 100 * errors.max()) if len(errors) else (0.0, 0.0)
        rows.append(
            f"| {tolerance:g} | {took:.0f} | {whole / took:.1f} | {100 * len(errors) / len(array):.1f} "
            f"| {mean:.1f} | {most:.1f} |"
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--features", type=Path, required=True, help="features folder, filled on the first run")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of MIL on the montage; 0 for none")
    arguments = parser.parse_args()
    data = Path(os.environ.get("XELVAD_SHARED", ROOT.parent / "shared" / "data")) / "cctv_montage"
    extract(find_videos([data]), arguments.features, ExtractionConfig(extractor=(EXTRACTOR,)))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw_quiet_videos(folder / "streets")
        extract(find_videos([folder / "streets"]), folder / "features", ExtractionConfig(extractor=(EXTRACTOR,)))
        learnt: list[list[str]] = []
        for videos, features in ((data, arguments.features), (folder / "streets", folder / "features")):
            learnt.append([learning_row(videos, features, each, arguments.seeds) for each in (0.0, *TOLERANCES)])
            print(*learnt[-1], sep="\n", flush=True)
        frames = draw_watch(folder / "watch.mp4")
        watch = watch_rows(folder / "watch.mp4", folder)
        print(*watch, sep="\n")
    header = ["| tolerance | clips reused % | mean error % | largest error % | AUC % |", "|---|---|---|---|---|"]
    write_section(
        "Reuse of still clips",
        [
            "`--reuse-static TOLERANCE`, in grey levels of the mean of a 16 x 16 block. Errors are those of the reused",
            "clips: the length of the difference by that of the exact features, in per cent.",
            "",
            f"CCTV montage, i3d-rgb; MIL, mean of the folds' AUCs, mean ± sd over {arguments.seeds} seeds:",
            "",
            *header,
            *learnt[0],
            "",
            f"{VIDEOS} drawn videos of {STILL} still frames and {MOVING} in which people and cars move, half of them",
            "with an anomaly; the same:",
            "",
            *header,
            *learnt[1],
            "",
            f"A drawn street, {frames} frames, empty for nine tenths, sensor noise of {NOISE} grey levels, H.264:",
            "",
            "| tolerance | s | times as fast | clips reused % | mean error % | largest error % |",
            "|---|---|---|---|---|---|",
            *watch,
            "",
            f"`python benchmarks/still_footage.py --features DIR --seeds {arguments.seeds}`, {datetime.date.today()}, "
            f"xelvad {__version__}, torch {torch.__version__}.",
        ],
    )


if __name__ == "__main__":
    main()
