"""Run folders: everything that one training leaves behind, and nothing that needs unpickling.

``config.yaml`` (how), ``detector.safetensors`` (the weights), ``metrics.json`` (what came of it), ``manifest.json``
(versions, digests of data and extractor), ``tensorboard/`` (curves). Two runs of one configuration on the same data and
machine have equal bytes, but for TensorBoard's, which carry the time.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ..errors import UserError
from .bags import BagConfig
from .clips import Clipping
from .files import write_bytes, write_text

if TYPE_CHECKING:
    from ..models import Detector

FORMAT = 1


@dataclass(frozen=True)
class RunManifest:
    """What a run was made of."""

    version: str  # of xelvad
    detector: str
    xel: str  # mode: off or epoch
    feature_dim: int
    extractor: str
    fingerprint: str  # of the extractor: new videos must be scored on features of the same
    clipping: Clipping
    bags: BagConfig
    seed: int
    dataset: str
    dataset_digest: str
    features_digest: str  # over the digests of all training videos
    training_videos: int
    torch_version: str
    format: int = FORMAT

    @property
    def name(self) -> str:
        """The detector as papers call it, such as MIL+XEL."""
        return self.detector.upper() + ("+XEL" if self.xel != "off" else "")


@dataclass(frozen=True)
class Run:
    """A trained detector with its manifest."""

    folder: Path
    manifest: RunManifest
    detector: Detector


def save_run(
    folder: Path, manifest: RunManifest, detector: Detector, config: dict[str, Any], metrics: dict[str, Any]
) -> None:
    """Write a run folder; the manifest comes last, so that a folder without one is not a run."""
    import safetensors.torch

    write_text(folder / "config.yaml", yaml.safe_dump(config, sort_keys=False))
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in detector.state_dict().items()}
    write_bytes(folder / "detector.safetensors", safetensors.torch.save(state))
    write_text(folder / "metrics.json", json.dumps(metrics, indent=2))
    write_text(folder / "manifest.json", json.dumps(asdict(manifest), indent=2))


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
        if fields.get("format") != FORMAT:
            raise UserError(
                f"{folder}: a run of format {fields.get('format')} (xelvad {fields.get('version')}), "
                f"this version reads format {FORMAT}: train again, or use that version"
            )
        fields["clipping"] = Clipping(**fields["clipping"])
        fields["bags"] = BagConfig(**fields["bags"])
        return RunManifest(**fields)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path}: damaged ({error})") from error


def load_run(folder: Path) -> Run:
    """Load a run: its detector in evaluation mode, on the CPU.

    Raises:
        UserError: as `read_manifest_of_run`, or damaged weights.
    """
    import safetensors.torch

    from ..models import DETECTORS

    manifest = read_manifest_of_run(folder)
    if manifest.detector not in DETECTORS:
        raise UserError(f"{folder}: holds a detector {manifest.detector!r}, this version knows {', '.join(DETECTORS)}")
    detector = DETECTORS[manifest.detector](manifest.feature_dim)
    path = folder / "detector.safetensors"
    try:
        detector.load_state_dict(safetensors.torch.load(path.read_bytes()))
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:
        reason = str(error).split("\n")[0]
        raise UserError(f"{path}: the detector's weights cannot be loaded ({reason})") from error
    return Run(folder, manifest, detector.eval())
