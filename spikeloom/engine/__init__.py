"""From an equation to a run. Private: nobody outside of the package imports it."""
