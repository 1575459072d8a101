"""Network outputs to results, one folder per task."""
