"""xelvad: weakly supervised video anomaly detection with cross-epoch learning (XEL).

The repository root is this package. Data takes one way through it::

    raw video -> clips -> features -> bags -> detector -> clip scores -> frame scores -> metrics, report
      pipeline/    extractors/                models/                                     pipeline/
"""

from importlib import import_module
from importlib.metadata import version as _version

__version__ = _version("xelvad")

# Public names are imported on first use, so that `import xelvad` does not wait for torch.
_PUBLIC = {"MIL": ".models", "XEL": ".models", "I3D": ".extractors"}
__all__ = ["I3D", "MIL", "XEL", "__version__"]


def __getattr__(name: str) -> object:
    """Import a public name on first use (PEP 562)."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'xelvad' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name], __name__), name)
