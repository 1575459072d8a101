"""Where the files that come with the package lie."""

from pathlib import Path

SOCCER = Path(__file__).parent / "assets" / "soccer"
"""The soccer-field example: weights, spec, exported model, model card, clip of held-out frames."""
