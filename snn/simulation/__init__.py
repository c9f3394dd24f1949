"""Running a converted network: over all steps at once, or by following its spikes."""
