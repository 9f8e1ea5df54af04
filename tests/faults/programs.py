"""The gateway as it is attacked, and copies of it that are broken on purpose: what Python is given to run."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent

PRODUCT = ("-m", "gateway.cli")
EAGER = (str(_HERE / "eager.py"),)
"""Answers before it commits."""
HASTY = (str(_HERE / "hasty.py"),)
"""Believes that nothing is under way any more."""
HEEDLESS = (str(_HERE / "heedless.py"),)
"""Guards a payment as if nothing of it were reserved."""
FORGETFUL = (str(_HERE / "forgetful.py"),)
"""Gives up its claim to a key while it is in flight."""
