"""Setting what a network computes: where (`place`), to what (`kinds`, `collecting`), and for how long (`doing`)."""
