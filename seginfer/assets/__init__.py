"""Files that come with the package."""

from pathlib import Path

SOCCER = Path(__file__).parent / "soccer"
"""The soccer-field example: weights, spec, exported model, model card and a clip of held-out frames."""
