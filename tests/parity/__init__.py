"""Parity with snnTorch 1.0.0, which these tests run as a black box."""
