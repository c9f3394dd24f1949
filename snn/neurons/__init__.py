"""Spiking neurons as pure step functions: state in, state out; the equations are the documentation."""
