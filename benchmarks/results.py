"""The page of results: each benchmark writes its own section of docs/results.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results.md"


def write_section(title: str, lines: Sequence[str]) -> None:
    """Replace the section ``## title``, or append it."""
    heading = f"## {title}"
    page = RESULTS.read_text() if RESULTS.exists() else "# Results\n"
    before, _, after = page.partition(f"{heading}\n")
    following = after.find("\n## ")
    rest = after[following + 1 :] if following >= 0 else ""
    RESULTS.write_text("\n".join([before.rstrip(), "", heading, "", *lines, "", rest]).rstrip() + "\n")
