"""A trained network put on a chip or into a file: quantised, mapped, simulated, compared and written."""
