"""The embedded data set: garments drawn by rule, and simulated users whose tastes are known."""
