"""Options of making, importing and auditing features, and of how they become bags."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from ...errors import UserError
from ...extractors.precision import Precision
from ...extractors.weights import RANDOM
from ..support.shards import Shard
from ..videos.config import FOLDER_FRAME_RATE, Tail

Crops = Literal["auto", "first", "second", "files"]
Scale = Literal["auto", "none", "l2", "standard", "standard+l2"]
SCALES: tuple[Scale, ...] = ("auto", "none", "l2", "standard", "standard+l2")


@dataclass(frozen=True)
class ExtractionConfig:
    """How features are made.

    Attributes:
        extractor: the clip networks, all fed by one decoding; `xelvad extractors` lists them.
        weights: known weights by name, a checkpoint file, or "random"; the extractor's own by default.
        tail: "pad" repeats the last frame so that every frame gets a score; "drop" is the papers' protocol.
        batch: clips that go through the network at once, of however many videos; 4 on a CPU and 32 on a GPU by default.
        device: "cpu", "cuda", "cuda:1"; "auto" takes a GPU if there is one.
        runtime: "eager", "compile" (torch.compile) or "openvino"; "auto" takes the fastest that is installed. All give
            the same features.
        precision: "float32" is the papers'; "bfloat16" gives the same features to 0.9995 of their cosine; "auto" takes
            it on processors that multiply it and half precision on GPUs, else float32. "int8" is faster, on CPUs; its
            features differ, and keep to a folder and to detectors of their own.
        workers: videos decoded at once; 1 on a CPU, where decoding is a small share, and the cores of the machine for a
            GPU by default.
        reuse_static: give a clip the features of the one before while no block of the picture has changed by more grey
            levels (of 255) than this; 0 computes every clip.
        decoder_memory: GB that decoding one video may take; one that takes more is set aside. 0 is no limit; on Linux.
        retry: try videos again that were set aside before and have not changed since.
        shard: "3/16" does the third of 16 parts of the videos, each of about as many bytes as the others, by which
            such commands share the work without talking to each other. Sizes cost nothing to know and are the same for
            all; to ask each of 10,000 videos for its duration would take every shard minutes.
    """

    extractor: Sequence[str] = ("i3d-rgb",)
    weights: str | None = None
    tail: Tail = "pad"
    batch: int | None = None
    device: str = "auto"
    runtime: Literal["auto", "eager", "compile", "openvino"] = "auto"
    precision: Precision = "auto"
    workers: int | None = None
    reuse_static: float = 0.0
    decoder_memory: float = 0.0
    retry: bool = False
    shard: str | None = None

    def __post_init__(self) -> None:
        if self.shard is not None:
            Shard.parse(self.shard)
        for name in ("batch", "workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name} must be at least 1, not {value}")
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise UserError(f"--device is cpu, cuda, cuda:1 and so on, or auto, not {self.device}")
        if not self.decoder_memory >= 0:
            raise UserError(f"decoder_memory is a number of GB, 0 or more, not {self.decoder_memory}")
        if not 0 <= self.reuse_static <= 255:
            raise UserError(f"reuse_static is a difference of grey levels, 0 to 255, not {self.reuse_static}")
        if not self.extractor or len(set(self.extractor)) < len(self.extractor):
            raise UserError(f"extractor: name one or more, each once, not {', '.join(self.extractor) or 'none'}")
        if len(self.extractor) > 1 and self.weights not in (None, RANDOM):
            raise UserError(f"weights: {self.weights} cannot fit {' and '.join(self.extractor)}: extract one by one")


@dataclass(frozen=True)
class ImportConfig:
    """How feature files of others are to be understood.

    Attributes:
        extractor: name to file the features under, for `train --extractor NAME`.
        clip_length: frames per clip, for .npy files with one row per clip.
        segments: rows of .npy files are segments, each an equal share of its video; those of .txt files always are.
        crops: where the crops of a clip stand: "first" in arrays of (crops, clips, F), "second" in (clips, crops, F),
            "files" in files of their own, NAME__0.npy, NAME__1.npy and so on; "auto" finds out, and refuses what is not
            certain.
        frame_rate: frames per second of the videos, for the times of scores; feature files do not know it.
    """

    extractor: str
    clip_length: int = 16
    segments: bool = False
    crops: Crops = "auto"
    frame_rate: float = FOLDER_FRAME_RATE

    def __post_init__(self) -> None:
        if Path(self.extractor).name != self.extractor or self.extractor in ("", ".."):
            raise UserError(f"extractor must be a plain name, not {self.extractor!r}")
        if self.clip_length < 1:
            raise UserError(f"clip_length must be at least 1, not {self.clip_length}")
        if self.crops not in get_args(Crops):
            raise UserError(f"crops is one of {', '.join(get_args(Crops))}, not {self.crops}")
        if not 0 < self.frame_rate < math.inf:
            raise UserError(f"frame_rate must be positive, not {self.frame_rate}")


@dataclass(frozen=True)
class BagConfig:
    """How clip features become bags.

    Attributes:
        segments: average the clips of a video into so many segments; 0 takes the clips as they are.
        clips: without segments, a step learns from at most so many clips of a video: of a longer abnormal one evenly
            spaced clips, of a longer normal one a random run. 16384 clips of 16 frames are two and a half hours.
        scale: "none" takes features as they are; "l2" gives every clip or segment the length 1, as MIL does; "standard"
            subtracts the mean of the training clips and divides by their deviation, dimension by dimension;
            "standard+l2" does both; "auto" is "standard+l2" where a few dimensions hold nearly all of the variance,
            as where features measure different things, else "l2".
    """

    segments: int = 32
    clips: int = 16384
    scale: Scale = "auto"

    def __post_init__(self) -> None:
        if self.segments < 0 or self.clips < 1:
            raise UserError(
                f"bags.segments must be 0 or more and bags.clips 1 or more, not {self.segments} and {self.clips}"
            )
        check_scale(self.scale)


def check_scale(scale: str) -> None:
    """Refuse what is no way to scale.

    Raises:
        UserError: names all that there are.
    """
    if scale not in SCALES:
        raise UserError(f"bags.scale is one of {', '.join(SCALES)}, not {scale}")
