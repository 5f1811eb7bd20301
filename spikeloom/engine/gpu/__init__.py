"""The scan over time as Triton kernels. No device has run them yet."""
