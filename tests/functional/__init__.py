"""Losses, accuracies and penalties."""
