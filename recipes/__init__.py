"""Tasks, recipes that learn them, one training loop, and a table of the stored runs: `python -m recipes`."""
