"""The commands of engram, one module each, and what they share."""
