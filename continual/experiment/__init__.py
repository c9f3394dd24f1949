"""The experiment continual.stream: its options, its loop, its tests and its report."""
