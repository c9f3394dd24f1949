"""The kinds of feedback, one in each file."""
