"""Groups of trials, intervals, and what differences are worth."""
