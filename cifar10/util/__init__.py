"""Utilities for all other parts of the package, on which they do not depend."""
