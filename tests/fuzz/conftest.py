"""Scripts of their own, which are no tests."""

collect_ignore = ["hostile.py", "mutating.py", "targets.py", "worker.py"]
