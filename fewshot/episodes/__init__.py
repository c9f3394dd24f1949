"""Episodes: small tasks drawn from a set of classes, and how well a head does in many of them."""
