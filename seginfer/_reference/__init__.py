"""Executable specification in NumPy.

Every fast kernel must equal it.
"""
