"""Which trials a sweep has: a grid, or a search that learns from those that are done."""
