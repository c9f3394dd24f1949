"""Parts of one network for every task: gates over its units (xdg, hat) and masks over its weights (packnet)."""
