"""An experimentation suite for brain-inspired vision networks: one backbone, plugins beside it, one runner."""
