"""What finished runs say, as numbers: trials, comparisons, tables. No pixel is drawn here."""

from imgrec_lib.results.results import Results

__all__ = ["Results"]
