"""Tasks: each collects zoos of trained checkpoints and evaluates vectors of weights."""
