"""Strategies that dream of earlier tasks instead of keeping their images."""
