"""Training settings that several cards share; each card says what differs."""

from __future__ import annotations

from imgrec_lib.models.base import TrainSettings

LARGE_BATCHES = TrainSettings(batch_size=8192, negatives=4, positives_by="interaction", epochs=300, patience=10)
"""What training on a CPU found good on a week of H&M purchases: few, large steps, until validation stops to improve."""

UCSD = TrainSettings(
    optimiser="sgd", learning_rate=0.64, batch_size=128, epochs=500, positives_by="user-without-replacement"
)
"""The UCSD code of BPR-MF and VBPR: SGD at 0.005 a triple; 128 triples a step, so 0.64 on the mean of their losses.

It uses up a user's positives before it draws one again.
"""

HM_WEEK = 6.28
"""Training interactions a row of the week of H&M purchases on which the penalties of most default profiles were found:
63,507 interactions of 11,737 users and 8,709 items; see `penalties_at`."""
