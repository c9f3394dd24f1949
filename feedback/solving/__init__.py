"""Fixed points of a function, for every image of a batch by itself, and their gradients; knows no network."""
