"""From records to numbers: metrics, intervals, contrasts, verdicts."""
