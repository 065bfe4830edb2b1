"""Training checkpoints, by plain steps."""
