"""From a trained network to a spiking one: thresholds, calibration and the experiment around them."""
