"""HDF5 files from strangers: screened and read in a process of their own, and handed over as plain arrays."""
