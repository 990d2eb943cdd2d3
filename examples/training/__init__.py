"""Rebuilds the bundled cases: grammars, models, SAEs and problem files."""
