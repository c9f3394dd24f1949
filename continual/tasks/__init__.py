"""One data set as a sequence of tasks."""
