"""The trunk's own experiments: train a network, score a trained one."""
