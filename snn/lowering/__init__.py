"""A trained classifier as populations of neurons with affine connections between them."""
