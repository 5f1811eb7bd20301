"""What a run leaves: a table that reads well, JSON that gives everything back, a page filled in from it."""

import json
from dataclasses import replace

import pytest

import spikeloom as snn
from benchmarks.leaky import UNROLLED
from benchmarks.on_jax import SPYX
from benchmarks.page import fill
from benchmarks.peers import LIBRARIES
from benchmarks.plots import draw
from benchmarks.report import heading, table
from benchmarks.result import Record, Result, load, store
from spikeloom.machine import machine, versions

RESULT = Result(
    case="made up",
    title="Nothing at all",
    sizes={"T": 3, "N": 4},
    ours="ours",
    floor="floor",
    seconds={"ours": [0.003, 0.002, 0.004], "theirs": [0.06], "floor": [0.0015]},
    missing={"another": "not installed; pip install another"},
    disagreeing={"wrong": "not timed, because it disagrees with 'ours': 1 of 3 spikes differ"},
    notes={"theirs": "fires later"},
    remarks="a remark",
    kernels={"ours": 2, "theirs": 0},
    memory={"ours": [3_000_000], "theirs": [120_000_000, 60_000_000, 130_000_000]},
)


def test_table():
    assert table(RESULT) == (
        "Nothing at all: T = 3, N = 4; 3 rounds in turn\n"
        "           median      min  this / ours  this / floor  kernels compiled or loaded                   memory\n"
        "  --------------------------------------------------------------------------------------------------------\n"
        "  ours    3.00 ms  2.00 ms         1.0x          2.0x                           2            3.0 MB (1.0x)\n"
        "  theirs  60.0 ms  60.0 ms          20x           40x                           0  60.0 MB to 130 MB (40x)\n"
        "  floor   1.50 ms  1.50 ms        0.50x          1.0x\n"
        "another: not installed; pip install another\n"
        "wrong: not timed, because it disagrees with 'ours': 1 of 3 spikes differ\n"
        "theirs: fires later\n"
        "a remark"
    )


def test_columns_that_nothing_is_known_of_are_left_out():
    alone = Result("alone", "Nothing", {}, "ours", None, {"reference": [1.0]})
    assert table(alone).splitlines()[1].split() == ["median", "min"]


def test_ratios_are_of_medians():
    seconds = {"ours": [2.0, 9.0, 1.0], "theirs": [30.0, 10.0, 90.0], "floor": [0.5]}
    result = replace(RESULT, seconds=seconds)
    assert result.median("ours") == 2
    assert result.times_ours("theirs") == 15
    assert result.times_floor("ours") == 4
    assert result.memory_times_ours("theirs") == 40


def test_samples_far_apart_are_named_noisy_in_the_table_the_file_and_the_page(tmp_path):
    noisy = replace(RESULT, seconds=RESULT.seconds | {"floor": [1e-4, 0.02, 0.03]}, label="Nothing [3, 4]")
    assert RESULT.noisy == {}
    assert noisy.noisy == {"floor": pytest.approx(200)}
    assert "NOISY" not in table(RESULT)
    warning = table(noisy).splitlines()[-1]
    assert warning.startswith("NOISY: the median is far above the minimum of floor (200x); other processes")
    assert "OMP_WAIT_POLICY=passive" in warning
    folder = tmp_path / "runs"
    folder.mkdir()
    store(Record([noisy, replace(noisy, swept="N"), RESULT]), folder / "made.json")
    message = json.loads((folder / "made.json").read_text())["results"]
    assert [entry["noisy"] for entry in message] == [["floor"], ["floor"], []]
    assert message[0]["found"]["floor"]["noise"] == pytest.approx(200)
    assert load(folder / "made.json").results[0] == noisy
    (tmp_path / "page.md").write_text(PAGE)
    text = fill(tmp_path / "page.md", folder)
    assert text.count("**Noisy**, the median is far above the minimum: floor (200x).") == 3  # the sweep, too


def test_no_ratio_without_what_it_is_of():
    result = replace(RESULT, seconds={"theirs": [1.0]}, memory={})
    assert result.times_ours("theirs") is None
    assert result.times_floor("theirs") is None
    assert result.memory_times_ours("theirs") is None


def test_json_gives_everything_back(tmp_path):
    record = Record([RESULT, replace(RESULT, swept="T")])
    store(record, tmp_path / "bench.json")
    assert load(tmp_path / "bench.json") == record
    message = json.loads((tmp_path / "bench.json").read_text())
    assert message["machine"] == machine()
    assert message["versions"] == versions()
    ours = {"median_s": 0.003, "min_s": 0.002, "noise": 1.5, "times_ours": 1, "times_floor": 2}
    assert message["results"][0]["found"]["ours"] == ours


PAGE = """# A page

<!-- bench machine: made -->
<!-- end -->
<!-- bench summary: made -->
<!-- end -->
<!-- bench made -->
old and wrong
<!-- end -->
The end.
"""


def test_a_page_is_filled_in_from_what_is_stored(tmp_path):
    page, folder = tmp_path / "page.md", tmp_path / "runs"
    folder.mkdir()
    page.write_text(PAGE)
    swept = [replace(RESULT, swept="N", sizes={"T": 3, "N": size}) for size in (4, 5)]
    labeled = replace(RESULT, label="Nothing [3, 4]")
    store(
        Record([labeled, *swept], {"cpu": "A chip", "cores": 2, "torch_threads": 1, "system": "Any"}),
        folder / "made.json",
    )
    text = fill(page, folder)
    assert "old and wrong" not in text
    assert text.endswith("The end.\n")
    assert "- A chip, 2 cores, 1 torch threads, Any; python" in text
    columns = "|  | median | min | this / ours | this / floor | kernels compiled or loaded | memory |"
    assert f"Nothing at all: T = 3, N = 4 (3 rounds).\n\n{columns}" in text
    assert "|  | spikeloom | snnTorch | SpikingJelly | Norse | Sinabs | floor |" in text
    assert "| Nothing [3, 4] | 3.00 ms | - | - | - | - | 0.50x |" in text
    assert "| theirs | 60.0 ms | 60.0 ms | 20x | 40x | 0 | 60.0 MB to 130 MB (40x) |" in text
    assert "theirs: fires later. another: not installed; pip install another. wrong: not timed" in text
    assert "Sweep of N (T = 3); other columns relative to the first:\n\n| N | ours | theirs | floor |" in text
    assert "| 5 | 3.00 ms | 20x | 0.50x |" in text
    page.write_text(text)
    assert fill(page, folder) == text


def test_a_run_that_is_not_stored_is_said_to_be_missing(tmp_path):
    (tmp_path / "page.md").write_text(PAGE)
    text = fill(tmp_path / "page.md", tmp_path)
    assert text.count("Not measured.") == 3
    assert "old and wrong" not in text


def test_machine_and_versions():
    assert machine()["cpu"]
    assert machine()["cores"] >= 1
    assert versions()["spikeloom"] == snn.__version__
    assert {"python", "torch", "numpy"} <= set(versions())
    assert str(machine()["cpu"]) in heading()
    assert Record([]).date.endswith("+00:00")


def test_a_library_has_one_colour_in_all_pictures():
    figures = pytest.importorskip("matplotlib.figure")
    found = {}
    for names in (("snnTorch", "another", *LIBRARIES), (*reversed(LIBRARIES), SPYX, UNROLLED, "snnTorch", "another")):
        panel = figures.Figure().subplots()
        draw(panel, [replace(RESULT, seconds={name: [1.0] for name in names})], "T")
        for line in panel.lines:
            found.setdefault(line.get_label(), set()).add(line.get_color())
    assert [len(colors) for colors in found.values()] == [1] * 7
    assert len(set.union(*found.values())) == 7
