"""The report: the table reads well, and JSON holds what it was measured on and every sample."""

import json

import spikeloom as snn
from spikeloom.bench.report import as_json, heading, machine, store, table, versions
from spikeloom.bench.runner import Case, Result

CASE = Case(
    name="made up",
    title="Nothing at all",
    axes=("T", "N"),
    shapes=((3, 4),),
    inputs=lambda shape: shape,
    contestants={},
    reference="ours",
    peer="theirs",
    floor="floor",
)
RESULT = Result(
    case=CASE,
    shape=(3, 4),
    seconds={"ours": [0.003, 0.002, 0.004], "theirs": [0.06], "floor": [0.0015]},
    missing={"another": "not installed; pip install another"},
    disagreeing={"wrong": "not timed, because it disagrees with 'ours': 1 of 3 spikes differ"},
    remarks="a remark",
)


def test_table():
    assert table(RESULT) == (
        "Nothing at all: T = 3, N = 4; 3 rounds in turn\n"
        "           median      min  theirs / this  this / floor\n"
        "  -----------------------------------------------------\n"
        "  ours    3.00 ms  2.00 ms            20x          2.0x\n"
        "  theirs  60.0 ms  60.0 ms           1.0x           40x\n"
        "  floor   1.50 ms  1.50 ms            40x          1.0x\n"
        "another: not installed; pip install another\n"
        "wrong: not timed, because it disagrees with 'ours': 1 of 3 spikes differ\n"
        "a remark"
    )


def test_columns_that_nothing_is_known_of_are_left_out():
    alone = Result(CASE, (3, 4), {"ours": [1.0]}, {}, {}, "")
    assert table(alone).splitlines()[1].split() == ["median", "min"]


def test_json_holds_everything(tmp_path):
    store([RESULT], tmp_path / "bench.json")
    stored = json.loads((tmp_path / "bench.json").read_text())
    assert stored["machine"] == machine()
    assert stored["versions"] == versions()
    (result,) = stored["results"]
    assert (result["case"], result["shape"]) == ("made up", {"T": 3, "N": 4})
    assert result["contestants"]["ours"] == {
        "median_s": 0.003,
        "min_s": 0.002,
        "times_faster_than_peer": 20,
        "times_the_floor": 2,
        "samples_s": [0.003, 0.002, 0.004],
    }
    assert list(result["missing"]) == ["another"]
    assert list(result["disagreeing"]) == ["wrong"]


def test_machine_and_versions():
    assert machine()["cpu"]
    assert machine()["cores"] >= 1
    assert versions()["spikeloom"] == snn.__version__
    assert {"python", "torch", "numpy"} <= set(versions())
    assert str(machine()["cpu"]) in heading()
    assert as_json([])["date"].endswith("+00:00")
