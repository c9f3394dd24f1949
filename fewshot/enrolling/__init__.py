"""Classes of the user's own: a handful of pictures of each, and a network that has learned others."""
