"""The layers: arguments, states, saving, lifetime, errors."""
