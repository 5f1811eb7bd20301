"""`python -m benchmarks`, from its arguments to its exit status."""

import json
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import benchmarks as registry
from benchmarks import command, leaky, networks, runner
from benchmarks.__main__ import main
from benchmarks.leaky import FLOOR, LEAKY, PEER, STEPPED, UNROLLED
from benchmarks.memory import peak_of, peaks
from benchmarks.page import section
from benchmarks.result import Result, load, store
from benchmarks.start import OURS, START, calls, in_fresh_process
from benchmarks.threads import THREADS
from spikeloom.engine import tuning


@pytest.fixture(autouse=True)
def one_run_a_turn_in_a_folder_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setattr(runner, "TURN", 0.0)
    monkeypatch.chdir(tmp_path)


def test_leaky_agrees_and_is_stored(tmp_path, capsys):
    assert main(["--shape", "6,2,3", "4,1,5", "--repeats", "2"]) == 0
    printed = capsys.readouterr().out
    assert "Leaky over [T, B, N], forward and backward, float32: T = 6, B = 2, N = 3; 2 rounds in turn" in printed
    assert "numba" in printed
    first, second = json.loads((tmp_path / "spikeloom-bench.json").read_text())["results"]
    assert list(first["seconds"]) == [UNROLLED, STEPPED, PEER, FLOOR]
    assert second["sizes"] == {"T": 4, "B": 1, "N": 5}
    ours, peer = first["found"][UNROLLED], first["found"][PEER]
    assert peer["times_ours"] == peer["median_s"] / ours["median_s"]
    assert len(first["seconds"][UNROLLED]) == 2


def test_a_sweep_is_measured_stored_and_drawn(monkeypatch, tmp_path, capsys):
    small = replace(LEAKY, shapes=((6, 2, 3),), sweeps={"T": ((4, 2, 3), (7, 2, 3)), "N": ((6, 2, 5),)})
    monkeypatch.setitem(registry.CASES, "leaky", small)
    kept = tmp_path / "runs"
    kept.mkdir()
    arguments = ["--sweep", "--repeats", "1", "--store", str(kept), "--plot", str(tmp_path / "here.png")]
    assert main([*arguments]) == 0
    results = load(kept / "leaky.json").results
    assert [result.swept for result in results] == [None, "T", "T", "N"]
    assert [result.sizes["T"] for result in results] == [6, 4, 7, 6]
    drawn = (kept / "leaky.svg").read_text()
    assert all(word in drawn for word in ("T (B = 2, N = 3)", "N (T = 6, B = 2)", UNROLLED, FLOOR, "median, ms"))
    assert (tmp_path / "here.png").read_bytes().startswith(b"\x89PNG")
    first = (kept / "leaky.json").read_text()
    assert main(["--repeats", "1", "--store", str(kept)]) == 0
    assert len(load(kept / "leaky.json").results) == 1, "a run replaces what was stored of its case"
    assert first != (kept / "leaky.json").read_text()


def test_without_matplotlib_nothing_is_measured_in_vain(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["--sweep", "--store", str(tmp_path)]) == 1
    assert "pip install matplotlib" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read from /proc")
def test_memory_is_that_of_one_run():
    megabyte = 1 << 20
    assert peak_of(lambda: None) < megabyte
    assert 63 * megabyte < peak_of(lambda: torch.ones(1 << 24)) < 66 * megabyte
    result = Result("leaky", "", {"T": 300, "B": 8, "N": 512}, UNROLLED, FLOOR, {UNROLLED: [1.0], FLOOR: [1.0]})
    found = peaks(LEAKY, result)
    assert list(found) == [UNROLLED], "a floor has its memory already"
    (peak,) = found[UNROLLED]
    assert peak > 2 * 300 * 8 * 512 * 4, "spikes and a membrane at least"


def test_disagreement_is_the_exit_status(monkeypatch, capsys):
    def spoilt(x):
        run = LEAKY.contestants[UNROLLED](x)
        return lambda: {**run(), "spikes": 1 - run()["spikes"]}

    case = replace(LEAKY, contestants={**LEAKY.contestants, UNROLLED: spoilt})
    monkeypatch.setitem(registry.CASES, "leaky", case)
    assert main(["--shape", "6,2,3", "--repeats", "1"]) == 1
    printed = capsys.readouterr().out
    assert f"{UNROLLED}: not timed, because it disagrees with {STEPPED!r}: 36 of 36 spikes differ" in printed


def test_without_snntorch_the_others_are_timed(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "snntorch", None)
    assert main(["--shape", "6,2,3", "--repeats", "1"]) == 0
    printed = capsys.readouterr().out
    assert "snnTorch: not installed" in printed
    assert "pip install snntorch==1.0.0" in printed


def test_threads_leave_the_limit_as_it_was(capsys):
    before = tuning.limits.serial_below
    assert main(["--case", "threads", "--shape", "10,20", "--repeats", "1"]) == 0
    assert before == tuning.limits.serial_below
    assert "this / one thread" in capsys.readouterr().out
    assert max(t * m for t, m in THREADS.shapes) == 10_000_000


def test_start_runs_in_processes_of_its_own(tmp_path):
    found = in_fresh_process(calls(more=1), str(tmp_path))
    assert found["spikes"] > 0
    assert found["kernels"] == 0, "another length compiles nothing"
    assert in_fresh_process(calls(), str(tmp_path))["kernels"] == 2
    assert list(tmp_path.glob("*.py")), "its kernels are in the directory that was given"
    cache = START.inputs(())
    assert START.contestants[OURS](cache)()["seconds"] > 0
    assert not list(Path(cache).iterdir()), "an import compiles nothing"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shape", "6,x"], "'6,x' is not a shape; write sizes with commas, as in 500,16,512"),
        (["--repeats", "0"], "'0' is not a number of rounds; pass 1 or more"),
        (["--repeats", "few"], "'few' is not a number of rounds; pass 1 or more"),
        (["--case", "none"], "invalid choice: 'none'"),
    ],
)
def test_wrong_arguments_are_reported_with_the_usage(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*arguments])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shape", "6,2"], "case leaky got the shape 6,2; pass T,B,N, each at least 1\n"),
        (["--shape", "0,2,3"], "case leaky got the shape 0,2,3; pass T,B,N, each at least 1\n"),
        (["--case", "start", "--shape", "6"], "case start got the shape 6; it has no shape\n"),
        (["--out", "no/such/folder/x.json"], "--out got no/such/folder/x.json; pass the path of a file in an"),
        (["--store", "no/such"], "--store got no/such; pass the path of an existing folder\n"),
        (["--plot", "no/such/x.svg"], "--plot got no/such/x.svg for leaky; pass an existing folder, or a file"),
        (["--case", "start", "--plot", "x.svg"], "--plot got cases without a sweep; pass one of leaky, linear\n"),
        (["--page", "no/such.md"], "--page got no/such.md; pass the path of an existing page"),
    ],
)
def test_what_cannot_be_run_is_a_sentence(arguments, message, capsys):
    assert main([*arguments]) == 1
    assert capsys.readouterr().err.startswith(message)


def test_a_device_that_is_not_there_is_a_sentence(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["--device", "cuda"]) == 1
    assert "--device got cuda, but PyTorch finds no such device" in capsys.readouterr().err


def test_a_case_that_is_not_for_a_gpu_is_a_sentence(capsys):
    assert main(["--device", "cuda", "--case", "threads"]) == 1
    assert "got the case threads; pass one of leaky, step, spikes, half" in capsys.readouterr().err


@pytest.mark.parametrize("case", [case for case in registry.ON_GPU if case is not START], ids=lambda case: case.name)
def test_inputs_are_made_on_the_device_of_the_run(case, monkeypatch):
    for module in (leaky, networks):  # "meta" stands for a device here, and has no random numbers
        monkeypatch.setattr(module, "draw", lambda seed: None)
    with torch.device("meta"):
        x = case.inputs(case.small)
    assert getattr(x, "x", x).is_meta


def test_a_run_on_a_gpu_is_kept_apart_and_names_it(monkeypatch, tmp_path):
    for module in (command, runner):
        monkeypatch.setattr(module, "on", lambda device: nullcontext())
    arguments = ["--device", "cuda", "--case", "leaky", "--shape", "6,2,3", "--repeats", "1", "--store", str(tmp_path)]
    assert main([*arguments]) == 0
    record = load(tmp_path / "leaky-cuda.json")
    assert record.results[0].device == "cuda"
    store(replace(record, machine=record.machine | {"gpu": "a GPU"}), tmp_path / "leaky-cuda.json")
    assert section("machine: leaky-cuda", tmp_path).startswith("- a GPU; ")
    assert section("half-cuda", tmp_path) == "Not measured."
