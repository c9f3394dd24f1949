"""From options to trials: schemas, checked values, grids and identities."""
