"""``python -m engram.benchmarks`` is ``engram``."""

import sys

from engram.benchmarks.cli import main

if __name__ == "__main__":
    sys.exit(main())
