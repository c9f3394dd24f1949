"""Options: what a dataclass offers as flags, TOML keys and keyword arguments, and the one check of values for them."""

from engram.backbone.options.checking import Checker, in_full, options_of

__all__ = ["Checker", "in_full", "options_of"]
