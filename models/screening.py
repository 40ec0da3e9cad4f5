"""The hardest clips in a third to half of the time, on processors that multiply bfloat16 matrices.

All clips are scored in bfloat16, and of each video those that come out highest once more in float32: among them is the
hardest one, unless bfloat16's rounding, three digits, reorders more than `SCREENED` clips.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice

import torch
from torch import Tensor

from .bank import HardClip, Scorer, Videos

SCREENED = 16  # rows of a video that are compared in float32
ROWS = 32  # a screening takes a multiple of so many: oneDNN keeps memory for every number of rows it meets
COMPARED_VIDEOS = 16  # whose candidates are compared at once: few rows at a time leave a processor idle


@lru_cache(maxsize=1)
def multiplies_bfloat16() -> bool:
    """Whether this processor has instructions for products of bfloat16 matrices, so that these are the faster ones."""
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


def screened_hardest_clips(detector: Scorer, videos: Videos) -> Iterator[HardClip]:
    """As `bank.hardest_clips`, on the CPU.

    Raises:
        ValueError: a video without clips.
    """
    with torch.autocast("cpu", torch.bfloat16):  # around all of it, so that the weights are converted once
        candidates = (_candidates(detector, pieces) for pieces in videos)
        while group := list(islice(candidates, COMPARED_VIDEOS)):
            yield from _hardest(detector, group)


def _candidates(detector: Scorer, pieces: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Rows of a video that its hardest clip is among, of all crops: their features ``(n, F)``, their clips ``(n,)``.

    These are the best by a screening, and the last few rows, which are not screened.
    """
    rows, clips, first = [], [], 0
    for piece in pieces:
        if not len(piece):
            continue
        flat = piece.flatten(0, -2)  # (t, F) or (t, crops, F) -> (n, F)
        whole = len(flat) - len(flat) % ROWS
        best = torch.arange(whole, len(flat))
        if whole:  # of equals the first
            order = detector.score(flat[:whole]).argsort(descending=True, stable=True)
            best = torch.cat([order[:SCREENED], best])
        rows.append(flat[best])
        clips.append(first + best // (len(flat) // len(piece)))
        first += len(piece)
    if not rows:
        raise ValueError("a video without clips has no hardest clip")
    return torch.cat(rows), torch.cat(clips)


def _hardest(detector: Scorer, candidates: Sequence[tuple[Tensor, Tensor]]) -> Iterator[HardClip]:
    """Of each video the candidate with the highest score in float32."""
    lengths = [len(clips) for _, clips in candidates]
    with torch.autocast("cpu", enabled=False):
        scores = detector.score(torch.cat([rows for rows, _ in candidates])).split(lengths)
    for (rows, clips), video in zip(candidates, scores, strict=True):
        best = video.argmax()
        yield HardClip(rows[best], clips[best], video[best])
