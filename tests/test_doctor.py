"""`python -m spikeloom doctor`: every section is printed, and what is broken is a sentence in it."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from spikeloom import doctor, machine
from spikeloom.__main__ import main
from spikeloom.engine.run import backends

SECTIONS = ["Versions", "Machine", "Threads", "Backends, fastest first", "Kernel cache"]


@pytest.fixture(autouse=True)
def compiling(monkeypatch):
    """Triton compiles, as it does for users; in its interpreter some releases warn, and the doctor reports that."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


@pytest.fixture
def report(capsys):
    """Runs the doctor: its sections, each a title and the lines below it."""

    def run():
        assert main(["doctor"]) == 0
        blocks = capsys.readouterr().out.strip().split("\n\n")
        return {title: lines for title, *lines in (block.splitlines() for block in blocks)}

    return run


def line(lines, start):
    """The one line that starts so."""
    (found,) = [text.strip() for text in lines if text.strip().startswith(start)]
    return found


def test_a_sound_installation(report):
    sections = report()
    assert list(sections)[:5] == SECTIONS
    assert line(sections["Versions"], "torch").endswith(torch.__version__)
    assert "usable, torch uses" in line(sections["Machine"], "cores")
    assert "works: Leaky over [12, 3, 40], forward and backward, agrees with the loop" in line(
        sections["Backends, fastest first"], "numba on cpu"
    )
    assert "works" in line(sections["Backends, fastest first"], "loop on cpu")
    place = line(sections["Kernel cache"], "location")
    assert os.environ["SPIKELOOM_CACHE_DIR"] in place
    assert "CANNOT" not in place
    assert "kernels" in line(sections["Kernel cache"], "contents")
    (advice,) = [lines for title, lines in sections.items() if title.startswith("If an unrolled network is slow")]
    assert "check=True" in advice[0]
    assert "snn.explain" in advice[1]


def test_threads_that_other_processes_slow_down(report, monkeypatch):
    busy = machine.Threads(2, [0.0001, 0.02, 0.02], [0.0002], limit=1.5, load=9.0, policy="active")
    monkeypatch.setattr(doctor, "measured_threads", lambda: busy)
    lines = report()["Threads"]
    assert line(lines, "threads").endswith("2; OMP_WAIT_POLICY is active")
    assert line(lines, "cgroup limit").endswith("1.5 CPUs")
    assert line(lines, "load").split(None, 1)[1].startswith("9.0 processes")
    assert line(lines, "torch.add").endswith("of 1,000,000 numbers: 20.00 ms on 2 threads, 0.20 ms on one")
    message = line(lines, "BUSY")
    assert "a cgroup allows 1.5 CPUs, and torch uses 2 threads" in message
    assert "2 threads take 100 times as long as one; the slowest tenth of the calls takes 200 times" in message
    assert "OMP_WAIT_POLICY=passive" in message
    assert "torch.set_num_threads(1)" in message


def test_threads_that_nothing_slows_down(report, monkeypatch):
    for quiet in (machine.Threads(1), machine.Threads(4, [0.0001] * 9, [0.0003], limit=4.0, load=0.5)):
        assert quiet.problems == []
        monkeypatch.setattr(doctor, "measured_threads", lambda quiet=quiet: quiet)
        verdict = "one thread, which waits for no other" if quiet.count == 1 else "do not slow down the threads"
        assert line(report()["Threads"], "verdict").endswith(verdict)


def test_the_threads_are_measured_and_restored():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        found = machine.measured_threads(0.01)
        assert (found.count, torch.get_num_threads()) == (2, 2)
        assert min(*found.together, *found.alone) > 0
        torch.set_num_threads(1)
        assert machine.measured_threads(0.01).slower == 0
    finally:
        torch.set_num_threads(before)


def test_the_limit_of_a_cgroup(tmp_path):
    (tmp_path / "own").write_text("0::/batch/job\n")
    job = tmp_path / "batch" / "job"
    job.mkdir(parents=True)
    limit = lambda: machine.cpu_limit(tmp_path, tmp_path / "own")  # noqa: E731
    assert limit() is None
    (job / "cpu.max").write_text("max 100000\n")
    assert limit() is None
    (tmp_path / "batch" / "cpu.max").write_text("150000 100000\n")  # of the group around it
    assert limit() == 1.5
    (tmp_path / "cpu").mkdir()  # version 1
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("50000\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert limit() == 0.5
    assert machine.cpu_limit(tmp_path / "none", tmp_path / "none") is None


def test_an_error_that_mentions_a_refusal_is_no_refusal(report, monkeypatch):
    def fails(name, device):
        raise RuntimeError("backend 'numba' was selected, but cannot run it")

    monkeypatch.setattr(doctor, "compare_with_loop", fails)
    assert "FAILS: RuntimeError" in line(report()["Backends, fastest first"], "loop on cpu")


def test_numba_is_missing(report, monkeypatch):
    versions = {name: v for name, v in doctor.versions().items() if name != "numba"}
    monkeypatch.setattr(doctor, "versions", lambda: versions)
    monkeypatch.setattr(backends, "numba_missing", lambda: "numba is not installed (pip install numba)")
    sections = report()
    assert "not installed, but required: pip install numba" in line(sections["Versions"], "numba")
    trial = line(sections["Backends, fastest first"], "numba on cpu")
    assert trial.endswith("not here: numba: numba is not installed (pip install numba)")
    assert "works" in line(sections["Backends, fastest first"], "loop on cpu")


def test_an_optional_package_is_missing(report, monkeypatch):
    monkeypatch.setattr(doctor, "version_of", lambda name: None)
    lines = report()["Versions"]
    assert line(lines, "tqdm").endswith("not installed (progress bars; pip install tqdm)")


def test_a_backend_that_is_wrong(report, monkeypatch):
    right = doctor.tried
    monkeypatch.setattr(doctor, "tried", lambda name, device: [t + (name == "numba") for t in right(name, device)])
    trial = line(report()["Backends, fastest first"], "numba on cpu")
    assert "FAILS: Wrong: 1440 of 1440 spikes differ from the loop's" in trial


def test_the_cache_cannot_be_written(report, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SPIKELOOM_CACHE_DIR", str(tmp_path / "file" / "kernels"))
    place = line(report()["Kernel cache"], "location")
    assert "CANNOT BE WRITTEN (Not a directory): every process compiles its kernels again" in place
    assert place.endswith("set SPIKELOOM_CACHE_DIR to move it")


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs POSIX rights")
def test_others_can_write_to_the_cache(report, monkeypatch, tmp_path):
    monkeypatch.setenv("SPIKELOOM_CACHE_DIR", str(tmp_path / "kernels"))
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels").chmod(0o777)
    place = line(report()["Kernel cache"], "location")
    assert "IS NOT USED (other users can write to" in place
    assert "every process compiles its kernels again" in place


def test_the_cache_can_only_be_read(report, monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "usable", lambda place: False)
    assert "IS READ-ONLY" in line(report()["Kernel cache"], "location")


def test_the_disk_is_full(report, monkeypatch):
    """An empty file still fits there."""

    class Full:
        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def write(self, content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", lambda dir: Full())
    assert "CANNOT BE WRITTEN (No space left on device)" in line(report()["Kernel cache"], "location")


@pytest.mark.parametrize(
    ("limit", "message"), [("", "512 MB"), ("20", "20 MB"), ("much", "WRONG: SPIKELOOM_CACHE_MB must")]
)
def test_the_limit_of_the_cache(report, monkeypatch, limit, message):
    monkeypatch.setenv("SPIKELOOM_CACHE_MB", limit)
    assert line(report()["Kernel cache"], "limit").split(None, 1)[1].startswith(message)


def test_the_cache_changes_while_it_is_read(report, monkeypatch):
    def gone():
        raise FileNotFoundError("kernel_1.py")

    monkeypatch.setattr(doctor, "cache_size", gone)
    assert line(report()["Kernel cache"], "contents").endswith("unknown (kernel_1.py)")


def test_an_installation_of_numba_that_does_not_load(tmp_path):
    """As with a NumPy that is too new for it: the package is found, and raises when it is imported."""
    (tmp_path / "numba").mkdir()
    (tmp_path / "numba" / "__init__.py").write_text("raise ImportError('Numba needs NumPy 2.3 or less')")
    root = Path(__file__).parent.parent
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(root)])}
    run = subprocess.run([sys.executable, "-m", "spikeloom", "doctor"], capture_output=True, text=True, env=env)
    assert run.returncode == 0, run.stderr
    assert "Numba needs NumPy 2.3 or less" in run.stdout
    assert "loop on cpu   works" in run.stdout
    assert (
        run.stdout.count("numba cannot be imported (Numba needs NumPy 2.3 or less); pip install") == 2
    )  # a warning, too


def test_a_numba_that_does_not_load_is_reported_once(tmp_path):
    (tmp_path / "numba").mkdir()
    (tmp_path / "numba" / "__init__.py").write_text("raise ImportError('Numba needs NumPy 2.3 or less')")
    root = Path(__file__).parent.parent
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(root)]), "PYTHONWARNINGS": "always"}
    code = """
import torch, spikeloom as snn
for _ in range(3):
    lif = snn.Leaky(beta=0.9)
    print(snn.unroll(lif, torch.ones(3, 1, 2))[0].shape, lif(torch.ones(1, 2))[0].shape)
print(snn.explain(lif, torch.ones(3, 1, 2)))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert run.returncode == 0, run.stderr
    assert run.stderr.count("UserWarning") == 1
    assert "numba cannot be imported (Numba needs NumPy 2.3 or less); pip install --upgrade numba" in run.stderr
    assert "numba cannot be imported" in run.stdout
