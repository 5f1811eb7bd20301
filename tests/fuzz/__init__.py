"""Random equations and random networks on every backend against the plain loop."""
