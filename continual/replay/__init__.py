"""Strategies that keep some images and train on them again."""
