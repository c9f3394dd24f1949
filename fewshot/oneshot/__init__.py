"""Lake's one-shot classification runs: twenty new characters, one drawing of each, and one of each to classify."""
