"""What spikes cost and what layers do, counted on images."""
