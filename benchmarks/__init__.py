"""Each file demonstrates one claim, as a ratio against a peer or a floor measured side by side in the same run."""
