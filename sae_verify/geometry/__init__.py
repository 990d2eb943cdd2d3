"""Subspaces, held cells and linear worst cases; and problems as numbers."""
