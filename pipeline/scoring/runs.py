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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ...errors import UserError
from ...files import write_bytes, write_text
from ..features.config import BagConfig
from ..features.scaling import Scaling
from ..videos.clips import Clipping, Segments, clipping_from
from .learned import Learned
from .thresholds import Calibration

if TYPE_CHECKING:
    from torch import Tensor

    from ...models import Detector

FORMAT = 2
READABLE = (1, FORMAT)
SCALING = "scaling.safetensors"
LAST = "last"
CHOICES = (LAST, "best_on_validation", "best_on_test")  # which weights of a run


@dataclass(frozen=True)
class RunManifest:
    """What a run was made of."""

    version: str  # of xelvad
    detector: str
    xel: str  # mode: off, epoch or batch
    feature_dim: int
    extractor: str
    fingerprint: str  # of the extractor: new videos must be scored on features of the same
    clipping: Clipping | Segments
    bags: BagConfig
    seed: int
    dataset: str
    dataset_digest: str
    features_digest: str  # over the digests of all training videos
    training_videos: int  # that it learnt from
    validation_videos: int  # put aside of the training videos
    quirks: str
    torch_version: str
    format: int = FORMAT

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

    video: str
    clip: int
    first_frame: int
    end_frame: int
    seconds: float
    score: float
    epochs: int


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
    from ...models import DETECTORS

    return DETECTORS[detector].title if detector in DETECTORS else detector


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
    try:
        fields = json.loads(path.read_text())
        if fields.get("format") not in READABLE:
            raise UserError(
                f"{folder}: a run of format {fields.get('format')} (xelvad {fields.get('version')}), "
                f"this version reads formats up to {FORMAT}: train again, or use that version"
            )
        fields["clipping"] = clipping_from(fields["clipping"])
        if "l2_normalise" in fields["bags"]:  # format 1
            fields["bags"]["scale"] = "l2" if fields["bags"].pop("l2_normalise") else "none"
        fields["bags"] = BagConfig(**fields["bags"])
        return RunManifest(**fields)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path}: damaged ({error})") from error


def identity_of(folder: Path) -> dict[str, Any]:
    """What a finished run was trained with and on: its configuration, and the digests of labels and features.

    Raises:
        UserError: as `read_manifest_of_run`, or a damaged configuration.
    """
    manifest, path = read_manifest_of_run(folder), folder / "config.yaml"
    try:
        config = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path}: damaged ({error})") from error
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

    from ...models import DETECTORS

    manifest = read_manifest_of_run(folder)
    if manifest.detector not in DETECTORS:
        raise UserError(f"{folder}: holds a detector {manifest.detector!r}, this version knows {', '.join(DETECTORS)}")
    detector = DETECTORS[manifest.detector](manifest.feature_dim)
    path = weights_path(folder, which)
    if which != LAST and not path.exists():
        raise UserError(f"{path}: this run has no such weights; it has {', '.join(kept_weights(folder))}")
    try:
        detector.load_state_dict(safetensors.torch.load(path.read_bytes()))
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:
        reason = str(error).split("\n")[0]
        raise UserError(f"{path}: the detector's weights cannot be loaded ({reason})") from error
    return Run(
        folder,
        manifest,
        detector.eval(),
        _read_scaling(folder, manifest),
        read_learned(folder),
        read_calibration(folder, which),
        which,
    )


def read_learned(folder: Path) -> Learned | None:
    """Whether a run learned anything; None for runs of earlier versions, which did not look.

    Raises:
        UserError: ``metrics.json`` is missing or damaged.
    """
    path = folder / "metrics.json"
    try:
        found = json.loads(path.read_text("utf-8")).get("learned")
        return None if found is None else Learned.restored(found)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path}: missing or damaged ({error})") from error


def read_calibration(folder: Path, which: str = LAST) -> Calibration | None:
    """The threshold that was chosen for the weights of a run; None where there is none, as in earlier versions' runs.

    Raises:
        UserError: ``metrics.json`` is missing or damaged.
    """
    path = folder / "metrics.json"
    try:
        found = json.loads(path.read_text("utf-8")).get("calibration", {}).get(which)
        return None if found is None else Calibration(**found)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path}: missing or damaged ({error})") from error


def _read_scaling(folder: Path, manifest: RunManifest) -> Scaling:
    import safetensors.numpy

    path = folder / SCALING
    try:
        arrays = safetensors.numpy.load(path.read_bytes()) if path.exists() else {}
        scaling = Scaling.restored(manifest.bags.scale, arrays)
        if any(array.shape != (manifest.feature_dim,) for array in scaling.arrays.values()):
            raise ValueError(f"not {manifest.feature_dim} numbers, one for each dimension of the features")
    except (OSError, KeyError, ValueError, safetensors.SafetensorError) as error:
        raise UserError(f"{path}: what features are scaled by is missing or damaged ({error})") from error
    return scaling


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
    try:
        return [BankRow(**row) for row in json.loads(path.read_text())]
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: damaged ({error})") from error
