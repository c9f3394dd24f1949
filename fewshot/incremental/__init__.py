"""Few-shot class-incremental learning: a base session, then new classes from a handful of images each."""
