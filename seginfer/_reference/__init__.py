"""Executable specification in NumPy: the arithmetic that every fast kernel must equal."""
