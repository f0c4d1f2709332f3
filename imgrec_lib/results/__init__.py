"""What finished runs say, as numbers: trials, comparisons, tables. No pixel is drawn here."""
