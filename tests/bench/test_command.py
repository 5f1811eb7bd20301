"""`python -m spikeloom bench`, from its arguments to its exit status."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import spikeloom.bench as registry
from spikeloom.__main__ import main
from spikeloom.bench import CASES, runner
from spikeloom.bench.leaky import FLOOR, LEAKY, PEER, STEPPED, THREADS, UNROLLED
from spikeloom.bench.start import FIRST_CALL, OURS, START, in_fresh_process
from spikeloom.scan import threads


@pytest.fixture(autouse=True)
def one_run_a_turn_in_a_folder_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setattr(runner, "TURN", 0.0)
    monkeypatch.chdir(tmp_path)


def test_every_case_is_found_by_its_name():
    assert [case.name for case in CASES.values()] == list(CASES)
    assert [name for name, case in CASES.items() if case.standard] == ["leaky"]


def test_leaky_agrees_and_is_stored(tmp_path, capsys):
    assert main(["bench", "--shape", "6,2,3", "4,1,5", "--repeats", "2"]) == 0
    printed = capsys.readouterr().out
    assert "Leaky over [T, B, N], forward and backward, float32: T = 6, B = 2, N = 3; 2 rounds in turn" in printed
    assert "numba" in printed
    first, second = json.loads((tmp_path / "spikeloom-bench.json").read_text())["results"]
    assert list(first["contestants"]) == [UNROLLED, STEPPED, PEER, FLOOR]
    assert second["shape"] == {"T": 4, "B": 1, "N": 5}
    ours, peer = first["contestants"][UNROLLED], first["contestants"][PEER]
    assert ours["times_faster_than_peer"] == peer["median_s"] / ours["median_s"]
    assert len(ours["samples_s"]) == 2


def test_disagreement_is_the_exit_status(monkeypatch, capsys):
    def spoilt(x):
        run = LEAKY.contestants[UNROLLED](x)
        return lambda: {**run(), "spikes": 1 - run()["spikes"]}

    case = replace(LEAKY, contestants={**LEAKY.contestants, UNROLLED: spoilt})
    monkeypatch.setitem(registry.CASES, "leaky", case)
    assert main(["bench", "--shape", "6,2,3", "--repeats", "1"]) == 1
    printed = capsys.readouterr().out
    assert f"{UNROLLED}: not timed, because it disagrees with {STEPPED!r}: 36 of 36 spikes differ" in printed


def test_without_snntorch_the_others_are_timed(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "snntorch", None)
    assert main(["bench", "--shape", "6,2,3", "--repeats", "1"]) == 0
    printed = capsys.readouterr().out
    assert "snnTorch: not installed" in printed
    assert "pip install snntorch==1.0.0" in printed


def test_threads_leave_the_limit_as_it_was(capsys):
    before = threads.SERIAL_BELOW
    assert main(["bench", "--case", "threads", "--shape", "10,20", "--repeats", "1"]) == 0
    assert before == threads.SERIAL_BELOW
    assert "one thread / this" in capsys.readouterr().out
    assert max(t * m for t, m in THREADS.shapes) == 10_000_000


def test_start_runs_in_processes_of_its_own(tmp_path):
    found = in_fresh_process(FIRST_CALL, str(tmp_path))
    assert found["spikes"] > 0
    assert list(tmp_path.glob("*.py")), "its kernels are in the directory that was given"
    cache = START.inputs(())
    assert START.contestants[OURS](cache)()["seconds"] > 0
    assert not list(Path(cache).iterdir()), "an import compiles nothing"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--shape", "6,x"], "'6,x' is not a shape; write sizes with commas, as in 500,16,512"),
        (["--repeats", "0"], "'0' is not a number of rounds; give 1 or more"),
        (["--repeats", "few"], "'few' is not a number of rounds; give 1 or more"),
        (["--case", "none"], "invalid choice: 'none'"),
    ],
)
def test_wrong_arguments_are_told_with_the_usage(arguments, told, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["bench", *arguments])
    assert stop.value.code == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--shape", "6,2"], "case leaky got the shape 6,2; give T,B,N, each at least 1\n"),
        (["--shape", "0,2,3"], "case leaky got the shape 0,2,3; give T,B,N, each at least 1\n"),
        (["--case", "start", "--shape", "6"], "case start got the shape 6; it takes none\n"),
        (["--out", "no/such/folder/x.json"], "--out got no/such/folder/x.json; give the path of a file in a folder"),
    ],
)
def test_what_cannot_be_run_is_a_sentence(arguments, told, capsys):
    assert main(["bench", *arguments]) == 1
    assert capsys.readouterr().err.startswith(told)
