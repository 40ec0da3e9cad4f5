"""Drawn surveillance footage with frame-level truth, so that a newcomer can try everything without a data set.

A fixed camera looks at a street. People walk at different speeds, stand and talk, pass each other; a car may drive by.
In an abnormal video one incident breaks in and ends again: a panic, a crash, an explosion. In a few videos, of either
kind, children race each other: normal, but hard to tell from a panic. What happens is told by `street` and `events`,
drawn by `scene`, and filmed, recorded and collected to data sets by `recording`.
"""

from .recording import ANOMALIES, EVENTS, draw_dataset, draw_video, film

__all__ = ["ANOMALIES", "EVENTS", "draw_dataset", "draw_video", "film"]
