"""The commands, one module each; `cli.py` parses and runs them. They call stages and print, and hold no logic."""

from __future__ import annotations

from . import (
    ablate,
    audit,
    bank,
    compare,
    demo,
    evaluate,
    extract,
    extractors,
    gc,
    import_features,
    leaderboard,
    results,
    score,
    train,
    verify,
    weights,
)
from .command import Command

# In the order in which help lists them: that of the work.
COMMANDS: dict[str, Command] = {
    "demo": demo.COMMAND,
    "extractors": extractors.COMMAND,
    "weights": weights.COMMAND,
    "audit": audit.COMMAND,
    "extract": extract.COMMAND,
    "import": import_features.COMMAND,
    "verify": verify.COMMAND,
    "gc": gc.COMMAND,
    "train": train.COMMAND,
    "evaluate": evaluate.COMMAND,
    "compare": compare.COMMAND,
    "results": results.COMMAND,
    "ablate": ablate.COMMAND,
    "leaderboard": leaderboard.COMMAND,
    "bank": bank.COMMAND,
    "score": score.COMMAND,
}
