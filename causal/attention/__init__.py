"""Attention that is compared with what it might have been, or with what it leaves out."""
