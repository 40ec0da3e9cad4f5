"""`python -m xelvad` is `xelvad`."""

import sys

from .pipeline.cli import main

sys.exit(main())
