"""From source to a callable: compilers, the kernel cache, threads and buffers."""
