"""Few-shot learning: classes that are known from a handful of images."""
