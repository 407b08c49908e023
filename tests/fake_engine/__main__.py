"""`python -m tests.fake_engine`: see `engine.py`."""

from __future__ import annotations

import sys

from tests.fake_engine.engine import main

sys.exit(main(sys.argv[1:]))
