"""Data sets whose shortcuts are known."""
