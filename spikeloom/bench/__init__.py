"""The benchmark: a registry of cases, one runner that checks before it times, one report."""
