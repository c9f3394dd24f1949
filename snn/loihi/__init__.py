"""Loihi 2: networks in its integers, their exact simulation, the cores they take, and Lava as the reference."""
