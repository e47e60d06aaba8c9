"""How a simulation runs the two apps: in process, or on Flower's simulation runtime."""
