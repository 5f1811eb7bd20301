"""One call of a neuron: the reference loop, the choice of a backend, and autograd."""
