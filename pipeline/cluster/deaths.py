"""Deaths: what Ray says when an actor is no more, whose fault it was, and where its last words are."""

from __future__ import annotations

from .actor import Where


def is_of_node(error: Exception) -> bool:
    """Whether an actor was lost with its node, or on the way to it, and not by what it did."""
    from ray import exceptions

    lost = exceptions.ActorUnavailableError | exceptions.NodeDiedError | exceptions.ObjectLostError
    return isinstance(error, lost) or bool(getattr(error, "preempted", False)) or "its node has died" in str(error)


def words_of(error: Exception) -> str:
    """What Ray says of a death, in a line that leaves out what it says of all of them."""
    from rich.text import Text

    text = " ".join(Text.from_ansi(str(error)).plain.split())  # Ray colours some names
    for start in ("Worker exit detail: ", "The actor died because "):
        text = text.partition(start)[2] or text
    return text.partition(" Some common causes include")[0][:300]


def obituary(where: Where | None, reason: str, died: bool, of_node: bool) -> str:
    """A line about a process that is no more, for people.

    Args:
        where: it was; None if it never came to run.
        reason: in words.
        died: it did; else something went wrong in it, and it was ended.
        of_node: with its node.
    """
    who = "a process that was being started" if where is None else str(where)
    said = f"{who} {'died' if died else 'failed'}: {reason}"
    if died and not of_node and where is not None and where.log is not None:
        said += f" Its last words are in {where.log} there."
    return said
