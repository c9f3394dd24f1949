"""The trunk's own networks, one file per architecture."""
