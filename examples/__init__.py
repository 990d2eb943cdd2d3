"""Bundled cases and the code that trains them."""
