"""Images to results, around a backend or with it."""
