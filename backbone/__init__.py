"""The trunk of engram: networks, data, training and contracts that more than one plugin needs."""
