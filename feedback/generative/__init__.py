"""A network run backward with its own weights: from logits to what a stage would have to give for them."""
