"""Bounds through the transformer blocks after the hook: what the checker needs of them, and how it encloses them."""
