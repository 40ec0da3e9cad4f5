"""Options that concern videos."""

from __future__ import annotations

from typing import Literal

Tail = Literal["pad", "drop"]
"""What becomes of the last, incomplete clip: padded with its last frame, or left out."""

FOLDER_FRAME_RATE = 25.0  # frames per second of a folder of pictures, which carries no times of its own
