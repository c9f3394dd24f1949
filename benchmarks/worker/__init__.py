"""The process that runs one trial."""
