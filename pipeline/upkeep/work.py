"""Whether somebody is at work on features just now: what looks wrong then may be right in a moment."""

from __future__ import annotations

import time

from ...leases import beside, holder
from ..features.store import FeatureStore
from .filing import Filed

# An array lies without its sidecar for an instant, also where no lease tells of it, as while features are imported. So
# long that the clocks of two machines may differ.
YOUNG_SECONDS = 3600.0


def is_at_work(store: FeatureStore, filed: Filed) -> bool:
    """Whether a process holds the lease on what lies under a name, or half of it has just come."""
    return holder(beside(store.array_path(filed.name))) is not None or (len(filed.files) == 1 and is_young(filed))


def is_young(filed: Filed) -> bool:
    """Whether one of the files was written within the last hour."""
    newest = max(file.modified for file in filed.files) / 1e9
    return time.time() - newest < YOUNG_SECONDS
