"""Random programs and networks, compared with the reference."""
