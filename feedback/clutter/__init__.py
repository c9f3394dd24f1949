"""Digits that occlude one another, as a task for networks with and without recurrence."""
