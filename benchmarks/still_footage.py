"""What `xelvad extract --reuse-static` saves and costs: on real CCTV, and on a long quiet watch of a street.

    XELVAD_SHARED=/path/to/data python benchmarks/still_footage.py --features DIR --seeds 3

On the CCTV montage, clips that are still by a tolerance take the features of the one before, as extraction would do it,
and MIL learns from these features and is tested on them, fold by fold. The street is drawn, watched by a sensor with
noise through a video codec, and empty for nine tenths of the time; there, time is measured.
"""

from __future__ import annotations

import argparse
import datetime
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import av
import numpy as np
import torch
from numpy.typing import NDArray
from results import write_section
from xelvad import __version__
from xelvad.pipeline.ablation import cross_validate
from xelvad.pipeline.cache import FeatureStore
from xelvad.pipeline.clips import Clipping
from xelvad.pipeline.extraction import LARGEST_SHORT_SIDE, extract
from xelvad.pipeline.footage.recording import film
from xelvad.pipeline.reading import Clip, ClipReader
from xelvad.pipeline.recipes import load_recipe
from xelvad.pipeline.settings import ExtractionConfig
from xelvad.pipeline.stillness import Stillness
from xelvad.pipeline.videos import VideoSource, find_videos

ROOT = Path(__file__).resolve().parent.parent
EXTRACTOR = "i3d-rgb"
TOLERANCES = (2.0, 8.0)
NOISE = 2.6  # grey levels of the sensor, per pixel, as in `footage.Sensor`
BUSY, QUIET = 250, 2250  # frames of each of the two stretches that the watch consists of, over and over
ROUNDS = 2


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
    """Write the montage's features as extraction with reuse makes them; returns the errors of what was reused."""
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


def montage_row(data: Path, features: Path, tolerance: float, seeds: int) -> str:
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


def draw_watch(path: Path) -> int:
    """A street that is busy for a while and then empty for long, over and over; returns how many frames it has."""
    busy = list(film(frames=BUSY, anomaly=None, seed=0).pictures)
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "23", "preset": "veryfast"})
        stream.height, stream.width = busy[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for _ in range(ROUNDS):
            for number in range(BUSY + QUIET):
                frame = busy[min(number, BUSY - 1)].astype(np.float32)
                if number >= BUSY:
                    frame += rng.normal(0, NOISE, (*frame.shape[:2], 1))
                picture = av.VideoFrame.from_ndarray(frame.clip(0, 255).astype(np.uint8), format="rgb24")
                container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return ROUNDS * (BUSY + QUIET)


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
    rows = []
    for tolerance in (0.0, *TOLERANCES):
        rows.append(montage_row(data, arguments.features, tolerance, arguments.seeds))
        print(rows[-1], flush=True)
    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder, "watch.mp4")
        frames = draw_watch(video)
        watched = watch_rows(video, Path(folder))
        print(*watched, sep="\n")
    write_section(
        "Reuse of still clips",
        [
            "`--reuse-static TOLERANCE`, in grey levels of the mean of a 16 x 16 block. Errors are those of the reused",
            "clips: the length of the difference by that of the exact features, in per cent.",
            "",
            f"CCTV montage, i3d-rgb; MIL, mean of the folds' AUCs, mean ± sd over {arguments.seeds} seeds:",
            "",
            "| tolerance | clips reused % | mean error % | largest error % | AUC % |",
            "|---|---|---|---|---|",
            *rows,
            "",
            f"A drawn street, {frames} frames, empty for nine tenths, sensor noise of {NOISE} grey levels, H.264:",
            "",
            "| tolerance | s | times as fast | clips reused % | mean error % | largest error % |",
            "|---|---|---|---|---|---|",
            *watched,
            "",
            f"`python benchmarks/still_footage.py --features DIR --seeds {arguments.seeds}`, {datetime.date.today()}, "
            f"xelvad {__version__}, torch {torch.__version__}.",
        ],
    )


if __name__ == "__main__":
    main()
