"""NIR graphs: read, interpreted, run as networks, written, and what other tools will make of them."""
