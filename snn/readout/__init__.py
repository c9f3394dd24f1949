"""How features are read from the last neurons of a spiking network: their rates, latencies or membranes."""
