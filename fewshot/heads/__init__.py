"""Heads that classify by a few labelled pictures of each class."""
