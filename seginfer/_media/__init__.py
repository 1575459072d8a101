"""Pictures and videos on disk."""
