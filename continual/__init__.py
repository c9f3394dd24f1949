"""Learning one task after another without forgetting the ones before."""
