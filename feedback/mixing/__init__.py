"""How much feedback a network with predictive coding is best mixed with, by how noisy its images are."""
