"""An equation as a graph, its gradient, and the program that kernels are generated from."""
