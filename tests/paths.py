"""Where the checkout is."""

from pathlib import Path

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
