"""What trials and sweeps keep in their folders."""
