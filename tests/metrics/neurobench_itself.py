"""Run NeuroBench on the networks of this folder, in a process of its own, and print what it says as JSON.

`python -m tests.metrics.neurobench_itself snntorch` measures snnTorch's neurons; golden.json holds its answer by
NeuroBench 2.3.0 and snnTorch 1.0.0. With `spikeloom` instead, snnTorch is an alias of spikeloom.
"""

import json
import sys
import warnings
from typing import Any

import torch


def main(library: str) -> dict[str, Any]:
    if library == "spikeloom":
        import spikeloom

        spikeloom.as_snntorch()
    import snntorch as snn
    from neurobench.benchmarks import Benchmark
    from neurobench.metrics import static, workload
    from neurobench.models import SNNTorchModel

    from tests.metrics.networks import each, loader, made

    names = ("ActivationSparsity", "ActivationSparsityByLayer", "SynapticOperations", "MembraneUpdates")
    workloads = [getattr(workload, name) for name in (*names, "ClassificationAccuracy", "NeuronOperations")]
    fixed = [static.ParameterCount, static.Footprint, static.ConnectionSparsity]
    assert "spikeloom" not in sys.modules or library == "spikeloom"

    class Model(SNNTorchModel):
        """Also accepts networks that return three values."""

        def __call__(self, data: torch.Tensor) -> torch.Tensor:
            snn.utils.reset(self.net)
            return torch.stack([self.net(data[:, t])[0] for t in range(data.shape[1])]).transpose(0, 1)

    def run(name: str) -> Any:
        last = [lambda spk: spk.sum(1).argmax(1)]
        return Benchmark(Model(made(name, snn)), loader(name), [], last, [fixed, workloads]).run(quiet=True)

    return {name: run(name) for name in each()}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.stdout.write(json.dumps(main(sys.argv[1]), indent=1) + "\n")
