"""Values put in the place of what a network computes."""
