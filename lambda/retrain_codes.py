"""Exit codes of `penstock retrain`, beside 0 (done), 1 (an error), 2 (wrong words): for cron and the schedule."""

from __future__ import annotations

BUSY = 3
"""Another retrain of the site is under way."""
TOO_FEW = 4
"""A model could not be judged for want of data; the others are done."""
FAILED = 5
"""A model could not be trained, or Triton refused it; the others are done."""
