"""From an equation to a run. Private to the package."""
