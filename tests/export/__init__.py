"""Tests of spikeloom/export."""
