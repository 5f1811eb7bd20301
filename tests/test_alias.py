"""`import snntorch` gives spikeloom where it is asked to, in a process of its own, and never beside snnTorch."""

import importlib.util
import subprocess
import sys
import textwrap

import pytest

SCRIPTS = {
    "undone": """
        import sys, spikeloom as snn
        with snn.as_snntorch():
            import snntorch.functional
            with snn.as_snntorch():
                import snntorch.utils
            import snntorch.spikegen
            assert snn.alias.stands_in()
        assert not snn.alias.stands_in()
        assert not [name for name in sys.modules if name.startswith("snntorch")]
        assert snntorch.spikegen is snn.spikegen
        try:
            with snn.as_snntorch():
                raise KeyError
        except KeyError:
            pass
        assert len([f for f in sys.meta_path if "spikeloom" in type(f).__module__]) == 0
        """,
    "one object in several blocks": """
        import sys, spikeloom as snn
        alias = snn.as_snntorch()
        with alias:
            with alias:
                import snntorch
            import snntorch.utils
        assert not [name for name in sys.modules if name.startswith("snntorch")]
        with alias:
            import snntorch
            assert snntorch is snn
        assert not [name for name in sys.modules if name.startswith("snntorch")]
        assert not [f for f in sys.meta_path if "spikeloom" in type(f).__module__]
        """,
    "not beside snnTorch": """
        import sys, types, spikeloom as snn
        sys.modules["snntorch"] = types.ModuleType("snntorch")
        try:
            snn.as_snntorch()
        except RuntimeError as error:
            assert "before anything that imports snntorch" in str(error)
        else:
            raise AssertionError
        assert not [f for f in sys.meta_path if "spikeloom" in type(f).__module__]
        del sys.modules["snntorch"]
        """,
    "for good, called within a block": """
        import sys, spikeloom as snn
        with snn.as_snntorch():
            snn.as_snntorch()
        import snntorch
        assert snntorch is snn
        """,
    "for good within a block": """
        import sys, spikeloom as snn
        snn.as_snntorch()
        with snn.as_snntorch():
            pass
        import snntorch
        assert snntorch is snn
        """,
    "all modules": """
        import spikeloom as snn
        snn.as_snntorch()
        import snntorch, snntorch.functional.loss, snntorch.spikegen
        from snntorch import backprop, functional as SF, spikeplot, surrogate, utils
        from snntorch.functional import quant
        from snntorch.functional.probe import OutputMonitor
        assert snntorch is snn and SF is snn.functional and surrogate is snn.surrogate and utils is snn.utils
        assert isinstance(snn.Leaky(beta=0.9), snntorch.SpikingNeuron)
        assert SF.loss is snntorch.functional.loss and OutputMonitor is SF.probe.OutputMonitor
        assert (snn.__spec__.name, snn.functional.__spec__.name) == ("spikeloom", "spikeloom.functional")
        import pickle, importlib
        assert pickle.loads(pickle.dumps(snntorch.Leaky(beta=0.5))).beta == 0.5
        try:
            import snntorch.no_such_module
        except ModuleNotFoundError:
            pass
        else:
            raise AssertionError
        """,
}


EVERY = """
import importlib.util, pathlib, sys
import spikeloom as snn
(place,) = importlib.util.find_spec("snntorch").submodule_search_locations
files = [file.relative_to(place).with_suffix("").parts for file in sorted(pathlib.Path(place).rglob("*.py"))]
names = [".".join(["snntorch", *parts]).removesuffix(".__init__") for parts in files]
print(len(names))
missing = []
with snn.as_snntorch():
    for name in names:
        try:
            module = importlib.import_module(name)
            assert module.__name__.startswith("spikeloom") or name == "snntorch._version"
        except ModuleNotFoundError as error:
            missing.append(name)
            assert "tonic" in str(error) or name.endswith("_nir"), error
    from snntorch._neurons.leakykernel import LeakyKernel
    from snntorch._version import __version__
assert LeakyKernel is snn.LeakyParallel and __version__ == "1.0.0"
assert not [name for name in sys.modules if name.startswith("snntorch")]
print(*missing)
"""


@pytest.mark.skipif(importlib.util.find_spec("snntorch") is None, reason="snntorch is not installed")
def test_every_submodule_of_snntorch_resolves():
    """Found in the installed snnTorch, which is not imported; only its datasets have no counterpart."""
    done = subprocess.run([sys.executable, "-c", EVERY], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    count, missing = done.stdout.splitlines()
    assert int(count) > 30
    assert {name for name in missing.split() if "spikevision" not in name} <= {
        "snntorch.export_nir",
        "snntorch.import_nir",
    }


def test_snntorch_stands_for_spikeloom():
    """One after the other in one process; the last two leave it so."""
    scripts = "".join(f"print({name!r})\nexec({textwrap.dedent(script)!r}, {{}})\n" for name, script in SCRIPTS.items())
    done = subprocess.run([sys.executable, "-c", scripts], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines() == [*SCRIPTS]
