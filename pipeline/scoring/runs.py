"""Run folders: everything that one training leaves behind, and nothing that needs unpickling.

``config.yaml`` (how), ``detector.safetensors`` (the weights after the last iteration), ``scaling.safetensors`` (what
features are scaled by, where that was learnt from them),
``best_on_validation.safetensors`` and ``best_on_test.safetensors`` (the weights at the best evaluation), ``bank.json``
(what is in the hard instance bank), ``metrics.json`` (what came of it), ``manifest.json`` (versions, digests of data
and extractor), ``state.pt`` (to go on from), ``tensorboard/`` (curves). Two runs of one configuration on the same data
and machine have equal bytes, but for TensorBoard's, which carry the time.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import yaml

from ...errors import UserError
from ...files import write_bytes, write_text
from ...schema import Count, Name, PlainName, Range, Share, parse, read_json, shown
from ..datasets import MAX_FRAMES
from ..features.config import BagConfig
from ..features.scaling import Scaling
from ..features.sidecar import MAX_DIM
from ..videos.clips import Clipping, Segments
from .learned import Learned, Separation
from .stored import ADVICE, check_weights, read_scaling, read_yaml
from .thresholds import Calibration

T = TypeVar("T")

if TYPE_CHECKING:
    from torch import Tensor

    from ...models import Detector

FORMAT = 2
READABLE = (1, FORMAT)
MAX_SEGMENTS = 1 << 16  # that a video is averaged into
SCALING = "scaling.safetensors"
LAST = "last"
CHOICES = (LAST, "best_on_validation", "best_on_test")  # which weights of a run


@dataclass(frozen=True)
class RunManifest:
    """What a run was made of."""

    version: str  # of xelvad
    detector: str
    xel: Literal["off", "epoch", "batch"]
    feature_dim: Annotated[int, Range(1, MAX_DIM)]
    extractor: PlainName
    fingerprint: str  # of the extractor: new videos must be scored on features of the same
    clipping: Clipping | Segments
    bags: BagConfig
    seed: Count
    dataset: str
    dataset_digest: str
    features_digest: str  # over the digests of all training videos
    training_videos: Count  # that it learnt from
    validation_videos: Count  # put aside of the training videos
    quirks: str
    torch_version: str
    format: int = FORMAT
    options: dict[str, bool | float | str] = field(default_factory=dict, hash=False)  # of the detector

    @property
    def name(self) -> str:
        """The detector as papers call it, such as MIL+XEL."""
        xel = {"off": "", "epoch": "+XEL", "batch": "+XEL (batch-wise)"}[self.xel]
        return title_of(self.detector) + xel


@dataclass(frozen=True)
class BankRow:
    """One row of the hard instance bank.

    Attributes:
        video: name of the normal video.
        clip: number of the clip, or segment, within it.
        first_frame: where it begins.
        end_frame: the frame behind its last.
        seconds: presentation time of the first frame.
        score: in [0, 1], when it was chosen.
        epochs: for how many refreshes in a row it has been chosen.
    """

    video: Name
    clip: Count
    first_frame: Annotated[int, Range(0, MAX_FRAMES)]
    end_frame: Annotated[int, Range(0, MAX_FRAMES)]
    seconds: float
    score: Share
    epochs: Count


@dataclass(frozen=True)
class Run:
    """A trained detector with its manifest."""

    folder: Path
    manifest: RunManifest
    detector: Detector
    scaling: Scaling  # of the features that the detector scores
    learned: Learned | None  # what the last iteration's weights came to; None where it was not looked at
    calibration: Calibration | None  # of these weights, under the exact protocol; None where no videos were put aside
    weights: str = LAST  # which of the kept ones

    @property
    def threshold_in_words(self) -> str:
        """From which score on a frame is an alarm, and what that was chosen on."""
        if self.calibration is None:
            return "0.5: this run has no calibrated one (xelvad train --validation puts videos aside to choose it on)"
        return f"{self.calibration.threshold:.4g}: {self.calibration.note}"


def title_of(detector: str) -> str:
    """A detector as papers call it; its name where this version does not know it."""
    from ...models import DETECTORS, FRAMEWISE

    known: dict[str, type[Detector]] = {**DETECTORS, **FRAMEWISE}
    return known[detector].title if detector in known else detector


def best_on(videos: str) -> str:
    """The choice of weights that was best on the "validation" or the "test" videos."""
    return f"best_on_{videos}"


def in_words(weights: str) -> str:
    """A choice of weights as tables call it."""
    return weights.replace("_", " ")


def weights_path(folder: Path, which: str) -> Path:
    """Where a run keeps the weights of its last iteration, or those that were best on validation or test videos."""
    return folder / f"{'detector' if which == LAST else which}.safetensors"


def save_run(
    folder: Path,
    manifest: RunManifest,
    weights: dict[str, dict[str, Tensor]],
    scaling: Scaling,
    config: dict[str, Any],
    metrics: dict[str, Any],
    bank: list[BankRow] | None,
) -> None:
    """Write a run folder; the manifest comes last, so that a folder without one is not a run."""
    import safetensors.numpy
    import safetensors.torch

    write_text(folder / "config.yaml", yaml.safe_dump(config, sort_keys=False))
    for which, state in weights.items():
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        write_bytes(weights_path(folder, which), safetensors.torch.save(tensors))
    if scaling.arrays:
        write_bytes(folder / SCALING, safetensors.numpy.save(scaling.arrays))
    write_text(folder / "metrics.json", json.dumps(metrics, indent=2))
    if bank is not None:
        write_text(folder / "bank.json", json.dumps([asdict(row) for row in bank], indent=2))
    write_text(folder / "manifest.json", json.dumps(asdict(manifest), indent=2))


def seed_folder(folder: Path, seed: int) -> Path:
    """Where one of several seeds of a training lies."""
    return folder / f"seed-{seed}"


def seed_of(folder: Path) -> int | None:
    """The seed of one of several trainings by the name of its folder; None for a run that stands alone."""
    match = re.fullmatch(r"seed-(\d+)", folder.name)
    return int(match[1]) if match else None


def name_of(run: Path) -> str:
    """How results call a run: by its folder, or by the folder that holds its seeds."""
    folder = run.resolve()
    return folder.name if seed_of(folder) is None else folder.parent.name


def runs_in(folder: Path) -> list[Path]:
    """A run folder itself, or those of the seeds within it, in the order of the seeds."""
    if is_run(folder) or not folder.is_dir():
        return [folder]
    seeds = {seed: path for path in folder.iterdir() if (seed := seed_of(path)) is not None}
    return [seeds[seed] for seed in sorted(seeds)] or [folder]


def is_run(folder: Path) -> bool:
    """Whether ``folder`` holds a run whose training finished."""
    return (folder / "manifest.json").is_file()


def read_manifest_of_run(folder: Path) -> RunManifest:
    """The manifest of a run folder.

    Raises:
        UserError: no such folder, not a run, or a run of another version.
    """
    path = folder / "manifest.json"
    if not folder.is_dir():
        raise UserError(f"{folder}: no such run folder; xelvad train --out {folder} would make one")
    if not is_run(folder):
        raise UserError(f"{folder}: not a run folder, or its training did not finish (there is no manifest.json)")
    fields = read_json(path, ADVICE)
    if not isinstance(fields, dict) or fields.get("format") not in READABLE:
        kind = shown(fields.get("format")) if isinstance(fields, dict) else "unknown"
        raise UserError(
            f"{path}: damaged, or a run of format {kind} (xelvad {_version_of(fields)}), this version reads formats up "
            f"to {FORMAT}: train again, or use that version"
        )
    bags = fields.get("bags")
    if isinstance(bags, dict) and isinstance(bags.get("l2_normalise"), bool):  # format 1
        bags["scale"] = "l2" if bags.pop("l2_normalise") else "none"
    manifest = parse(RunManifest, fields, path, ADVICE)
    cut = manifest.clipping
    if (cut.length if isinstance(cut, Clipping) else cut.segments) > MAX_FRAMES:
        raise UserError(f"{path}: damaged (clipping: more than the {MAX_FRAMES} frames of a video); {ADVICE}")
    if manifest.bags.segments > MAX_SEGMENTS:
        raise UserError(f"{path}: damaged (bags.segments: more than {MAX_SEGMENTS}); {ADVICE}")
    return manifest


def _version_of(fields: Any) -> str:
    version = fields.get("version") if isinstance(fields, dict) else None
    return version[:20] if isinstance(version, str) and version.isprintable() else "of unknown version"


def identity_of(folder: Path) -> dict[str, Any]:
    """What a finished run was trained with and on: its configuration, and the digests of labels and features.

    Raises:
        UserError: as `read_manifest_of_run`, or a damaged configuration.
    """
    manifest = read_manifest_of_run(folder)
    path = folder / "config.yaml"
    config = read_yaml(path)
    if config.get("validation") is not None:
        parse(float, config["validation"], f"{path}, validation", ADVICE)
    return {"config": config, "labels": manifest.dataset_digest, "features": manifest.features_digest}


def load_run(folder: Path, which: str = LAST) -> Run:
    """Load a run: its detector in evaluation mode, on the CPU.

    Args:
        folder: of the run.
        which: the weights of the last iteration, or those that were best on validation or test videos.

    Raises:
        UserError: as `read_manifest_of_run`, or weights that are missing or damaged.

    Example, with a folder that `xelvad train` made:
        >>> load_run(run_folder).manifest.name
        'MIL+XEL'
    """
    import safetensors.torch

    from ...models import DETECTORS, FRAMEWISE, new_detector

    manifest = read_manifest_of_run(folder)
    if manifest.detector not in (*DETECTORS, *FRAMEWISE):
        known = ", ".join((*DETECTORS, *FRAMEWISE))
        raise UserError(f"{folder}: holds a detector {manifest.detector!r}, this version knows {known}")
    path = weights_path(folder, which)
    if which != LAST and not path.exists():
        raise UserError(f"{path}: this run has no such weights; it has {', '.join(kept_weights(folder))}")
    try:
        state = safetensors.torch.load(path.read_bytes())
        make = partial(new_detector, manifest.detector, manifest.feature_dim, manifest.options)
        check_weights(state, make)
        detector = make()
        detector.load_state_dict(state)
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        reason = str(error).split("\n")[0]
        raise UserError(f"{path}: the detector's weights cannot be loaded ({reason})") from error
    return Run(
        folder,
        manifest,
        detector.eval(),
        read_scaling(folder / SCALING, manifest.bags.scale, manifest.feature_dim),
        read_learned(folder),
        read_calibration(folder, which),
        which,
    )


@dataclass(frozen=True)
class _WhatWasLearned:
    """As `Learned.plain` gives it."""

    verdict: str
    sentence: str
    training: Separation
    validation: Separation | None


def read_learned(folder: Path) -> Learned | None:
    """Whether a run learned anything; None for runs of earlier versions, which did not look.

    Raises:
        UserError: ``metrics.json`` is missing or damaged.
    """
    found = _metric(folder, "learned", _WhatWasLearned)
    if found is None:
        return None
    for each in filter(None, (found.training, found.validation)):
        if not (0 <= each.low <= each.auc <= each.high <= 1 and min(each.abnormal, each.normal) > 0 <= each.spread):
            raise UserError(f"{folder / 'metrics.json'}: damaged (learned: {each} cannot be); {ADVICE}")
    return Learned(found.training, found.validation)


def read_calibration(folder: Path, which: str = LAST) -> Calibration | None:
    """The threshold that was chosen for the weights of a run; None where there is none, as in earlier versions' runs.

    Raises:
        UserError: ``metrics.json`` is missing or damaged.
    """
    found = (_metric(folder, "calibration", dict[str, Calibration | None]) or {}).get(which)
    if found is not None and not (0 < found.target < 1 and min(found.videos, found.frames) > 0):
        raise UserError(f"{folder / 'metrics.json'}: damaged (calibration: {found} cannot be); {ADVICE}")
    return found


def _metric(folder: Path, name: str, kind: type[T]) -> T | None:
    """A part of a run's ``metrics.json``; None where there is none."""
    path = folder / "metrics.json"
    fields = parse(dict[str, Any], read_json(path, ADVICE), path, ADVICE)
    return None if fields.get(name) is None else parse(kind, fields[name], f"{path}, {name}", ADVICE)


def kept_weights(folder: Path) -> list[str]:
    """Which of `CHOICES` a run has."""
    return [which for which in CHOICES if weights_path(folder, which).exists()]


def read_bank(folder: Path) -> list[BankRow]:
    """What the hard instance bank of a run holds, highest score first.

    Raises:
        UserError: not a run, one without XEL, or a damaged file.
    """
    manifest = read_manifest_of_run(folder)
    path = folder / "bank.json"
    if manifest.xel == "off" or not path.exists():
        raise UserError(f"{folder}: {manifest.name} was trained without XEL, so it has no hard instance bank")
    return parse(list[BankRow], read_json(path, ADVICE), path, ADVICE)
