"""Tests of spikeloom.data."""
