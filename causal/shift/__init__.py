"""Training on some environments, tested on others."""
