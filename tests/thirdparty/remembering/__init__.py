"""A third party's plugin: a strategy that declares what it needs, and an objective with a column and a state."""
