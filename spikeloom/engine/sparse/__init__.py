"""Spikes times weights: products, convolutions and pooling that skip zeros."""
