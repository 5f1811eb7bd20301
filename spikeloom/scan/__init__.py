"""The engine: from one equation to a scan over time, on whichever machine is there."""
