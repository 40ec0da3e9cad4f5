"""Drawn grey videos: squares that move slowly across a noisy ground, and in some frames one of them fast."""

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

EDGE = 14  # of a square, pixels
SLOW, FAST = 1.5, 6.0  # pixels from frame to frame


def walk(rng: np.random.Generator, speeds: list[float], size: tuple[int, int]) -> list[tuple[int, int]]:
    """Where the upper left corner of a square is that moves straight on, and back from the borders."""
    room = np.array(size) - EDGE
    place, angle = rng.uniform(0, room), rng.uniform(0, 2 * np.pi)
    direction = np.array([np.sin(angle), np.cos(angle)])
    corners = []
    for speed in speeds:
        step = speed * direction
        direction = np.where((place + step < 0) | (place + step > room), -direction, direction)
        place = place + speed * direction
        corners.append(tuple(place.round().astype(int)))
    return corners


def draw_video(
    seed: int, frames: int, odd: tuple[int, int] = (0, 0), size: tuple[int, int] = (120, 160), squares: int = 3
) -> Tensor:
    """Uint8 ``(frames, H, W)``; from and until the frames ``odd`` one of the squares is four times as fast."""
    rng = np.random.default_rng(seed)
    video = rng.normal(60, 1.5, size=(frames, *size))
    speeds = [SLOW] * frames
    for number in range(squares):
        if number == squares - 1:
            speeds[slice(*odd)] = [FAST] * (odd[1] - odd[0])
        for t, (y, x) in enumerate(walk(rng, speeds, size)):
            video[t, y : y + EDGE, x : x + EDGE] = 150 + 30 * number
    return torch.from_numpy(video.clip(0, 255).astype(np.uint8))


def frame_auc(errors: list[Tensor], odd: tuple[int, int]) -> float:
    """Area under the ROC curve over the frames of videos in each of which the frames ``odd`` are anomalous."""
    truth = np.concatenate([(odd[0] <= np.arange(len(video))) & (np.arange(len(video)) < odd[1]) for video in errors])
    return float(roc_auc_score(truth, torch.cat(errors)))
