"""The package's version; the same as in pyproject.toml, which a test checks."""

__version__ = "0.1.0"
