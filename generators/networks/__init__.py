"""Parts that several generators share: networks, their training, and checks of hyperparameters."""
