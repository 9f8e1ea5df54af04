"""The gateway as it is attacked, and copies of it that are broken on purpose: what Python is given to run."""

from __future__ import annotations

PRODUCT = ("-m", "gateway.cli")
EAGER = ("-m", "tests.faults.eager")
"""Answers before it commits."""
HASTY = ("-m", "tests.faults.hasty")
"""Believes that nothing is under way any more."""
HEEDLESS = ("-m", "tests.faults.heedless")
"""Guards a payment as if nothing of it were reserved."""
STALLING = ("-m", "tests.faults.stalling")
"""Stands still for longer than its lease between the commit and the write, now and then."""
HEEDLESS_OF_LEASE = (*STALLING, "--heedless")
"""The same, and does not look at its lease when it goes on."""
FORGETFUL = ("-m", "tests.faults.forgetful")
"""Gives up its claim to a key while it is in flight."""
ABRUPT = ("-m", "tests.faults.abrupt")
"""Closes idle connections without a word."""
BRISK = ("-m", "tests.faults.brisk")
"""Goes on with another's rewrapping after one second instead of ten."""
CARELESS = ("-m", "tests.faults.careless")
"""Destroys older data keys without counting the rows that need them."""
