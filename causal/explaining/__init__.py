"""Which pixels, features and concepts a network answers by: the experiment ``causal.explain``."""
