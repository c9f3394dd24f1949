"""A third party's plugin, as small as one can be: it counts, logs, and needs no torch. Installed by a fixture."""
