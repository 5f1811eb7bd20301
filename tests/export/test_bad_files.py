"""Graphs and files that are damaged, hostile, newer or merely old: each gets a sentence that names the node."""

import itertools
import time

import h5py
import nir
import numpy as np
import pytest
import torch
from torch import nn

import spikeloom as snn

from .graphs import DT, around, cycle, leaky

ONE = np.ones(3)


def lif(**changed):
    fields = {"tau": 1e-3 * ONE, "r": 10 * ONE, "v_leak": 0 * ONE, "v_threshold": ONE, "v_reset": 0 * ONE}
    node = nir.LIF(**fields)
    vars(node).update(changed)
    return node


def chain(*nodes, shape=(3,)):
    named = {"input": nir.Input(np.array(shape)), **{f"n{i}": node for i, node in enumerate(nodes)}}
    named["output"] = nir.Output(np.array(shape))
    names = list(named)
    return nir.NIRGraph(named, list(itertools.pairwise(names)), type_check=False)


def loose(nodes, edges):
    return nir.NIRGraph(nodes, edges, type_check=False)


def itself(graph):
    graph.nodes["n0"] = graph
    return graph


ENDS = {"input": nir.Input(np.array([3])), "output": nir.Output(np.array([3]))}
EYE = nir.Linear(np.eye(3))

GRAPHS = {
    "'n1'.*shape .3,. and gets.*'n0'.*.4,.": lambda: chain(nir.Linear(np.ones((4, 3))), lif()),
    "the name of a node is 3, a int; pass a str": lambda: loose({**ENDS, 3: lif()}, [("input", "output")]),
    "'n0'.*takes a vector of 5": lambda: chain(nir.Linear(np.ones((4, 5)))),
    "weight .4, 3. and a bias .5,.": lambda: chain(nir.Affine(np.ones((4, 3)), np.ones(5))),
    "'n0'.*fields of different shapes": lambda: chain(lif(tau=np.ones(2))),
    "'n0'.*tau of 0 or less": lambda: chain(lif(tau=0 * ONE)),
    "'n0'.*tau that is not finite": lambda: chain(lif(tau=np.nan * ONE)),
    "'n0'.*shorter than a step of dt": lambda: chain(lif(tau=1e-5 * ONE)),
    "'n0'.*v_threshold below its v_reset": lambda: chain(lif(v_reset=2 * ONE)),
    "'n0'.*negative delay": lambda: chain(nir.Delay(-ONE)),
    "'n0'.*a delay of 1e.*steps": lambda: chain(nir.Delay(1e9 * ONE)),
    "'n0'.*2 input channels, and gets .3,.": lambda: chain(
        nir.Conv2d(None, np.ones((2, 2, 3, 3)), 1, 0, 1, 1, np.ones(2))
    ),
    "larger than its input": lambda: chain(
        nir.Conv2d(None, np.ones((2, 2, 9, 9)), 1, 0, 1, 1, np.ones(2)), shape=(2, 4, 4)
    ),
    "'n0'.*takes .channels, height, width.": lambda: chain(nir.AvgPool2d(np.ones(2), np.ones(2), np.zeros(2))),
    "'n0'.*flattens dimensions 5": lambda: chain(nir.Flatten({"input": None}, 5, 6)),
    "'output'.*declares": lambda: chain(nir.Linear(np.ones((4, 3)))),
    "names the node 'ghost'": lambda: loose({**ENDS, "a": EYE}, [("input", "ghost"), ("a", "output")]),
    "2 times": lambda: loose({**ENDS, "a": EYE}, [("input", "a"), ("input", "a"), ("a", "output")]),
    "'a' .Linear. has no input": lambda: loose({**ENDS, "a": EYE}, [("a", "output"), ("input", "output")]),
    "'n0' .Linear. has fields that do not fit: its weight is not finite": lambda: chain(nir.Linear(np.nan * np.eye(3))),
    "'n0' .Affine.*its bias is not finite": lambda: chain(nir.Affine(np.eye(3), np.inf * ONE)),
    "1.5. is not one or two whole numbers": lambda: chain(
        nir.Conv2d(None, np.ones((2, 2, 3, 3)), 1.5, 0, 1, 1, np.ones(2)), shape=(2, 6, 6)
    ),
    "'input' .Input. gets an edge": lambda: loose(ENDS, [("input", "input"), ("input", "output")]),
    "leaves the node 'output'": lambda: loose({**ENDS, "a": lif()}, [("input", "a"), ("a", "output"), ("output", "a")]),
    "not pairs of names": lambda: loose({**ENDS, "a": EYE}, [("input", "a", "output")]),
    "'a' is a str; pass a node of nir": lambda: loose({**ENDS, "a": "b"}, [("input", "a"), ("a", "output")]),
    "no Output": lambda: loose({"input": ENDS["input"], "a": EYE}, [("input", "a")]),
    "no Input": lambda: loose({"output": ENDS["output"], "a": EYE}, [("a", "output"), ("a", "a")]),
    "form a cycle without a neuron": lambda: loose(
        {**ENDS, "a": EYE, "b": EYE}, [("input", "a"), ("a", "b"), ("b", "a"), ("b", "output")]
    ),
    "'a' form a cycle without": lambda: loose({**ENDS, "a": EYE}, [("input", "a"), ("a", "a"), ("a", "output")]),
    "adds the outputs of 'input', .3,., and of 'a', .4,.": lambda: loose(
        {**ENDS, "a": nir.Linear(np.ones((4, 3))), "b": EYE},
        [("input", "b"), ("input", "a"), ("a", "b"), ("b", "output")],
    ),
    "declares the shape": lambda: chain(lif(), shape=(-3,)),
    "two nodes have the name 'a.b'": lambda: loose(
        {**ENDS, "a": loose({**ENDS, "b": EYE}, [("input", "b"), ("b", "output")]), "a.b": EYE},
        [("input", "a"), ("a", "a.b"), ("a.b", "output")],
    ),
    "'a' .LIF. gets nothing that comes from an Input": lambda: loose(
        {**ENDS, "a": lif(), "b": EYE}, [("input", "output"), ("a", "b"), ("b", "a"), ("a", "output")]
    ),
    "nested more than 50 deep": lambda: itself(chain(lif())),
    "2 inputs and 1 outputs": lambda: chain(
        loose({**ENDS, "more": nir.Input(np.array([3]))}, [("input", "output"), ("more", "output")])
    ),
}


def test_graphs_that_cannot_run_get_a_sentence():
    for match, make in GRAPHS.items():
        with pytest.raises(ValueError, match=match):
            snn.import_from_nir(make())


def test_large_cycles_are_read_in_linear_time():
    """Quadratic time would be minutes."""
    n = 700
    ring = [(f"n{i}", f"n{(i + 1) % n}") for i in range(n)]
    edges = [("input", "n0"), *ring, ("n5", "output")]
    uneven = nir.Delay(DT * np.array([1.0, 0.0, 1.0]))
    for node in (lif(), uneven):
        start = time.process_time()
        snn.import_from_nir(loose({**ENDS, **{f"n{i}": node for i in range(n)}}, edges))
        assert time.process_time() - start < 10
    with pytest.raises(ValueError, match="'n106' and 690 others form a cycle without a neuron"):
        snn.import_from_nir(loose({**ENDS, **{f"n{i}": nir.Scale(ONE) for i in range(n)}}, edges))


def test_a_shape_that_comes_back_in_a_cycle_is_checked():
    ends = {"input": nir.Input(np.array([2, 4, 4])), "output": nir.Output(np.array([2, 2, 2]))}
    pool = nir.AvgPool2d(kernel_size=np.array([2, 2]), stride=np.array([2, 2]), padding=np.array([0, 0]))
    edges = [("input", "lif"), ("lif", "pool"), ("pool", "lif"), ("pool", "output")]
    with pytest.raises(ValueError, match=r"'lif' adds the outputs of 'input', \(2, 4, 4\), and of 'pool', \(2, 2, 2\)"):
        snn.import_from_nir(
            loose({**ends, "lif": nir.IF(1e4 * np.ones((2, 4, 4)), np.ones((2, 4, 4))), "pool": pool}, edges)
        )


def test_what_is_not_a_graph():
    with pytest.raises(TypeError, match=r"single LIF node; pass nir.NIRGraph.from_list"):
        snn.import_from_nir(lif())
    with pytest.raises(TypeError, match="got a dict"):
        snn.import_from_nir({})
    for options, match in (({"dt": 0}, "dt is 0"), ({"reset": "delayed"}, "reset is 'delayed'")):
        with pytest.raises(ValueError, match=match):
            snn.import_from_nir(chain(lif()), **options)


@pytest.fixture
def file(tmp_path):
    net = nn.Sequential(nn.Linear(3, 3), leaky())
    nir.write(tmp_path / "net.nir", snn.export_to_nir(net, torch.rand(1, 3)))
    return tmp_path / "net.nir"


def test_files_that_cannot_be_read_get_a_sentence(file, tmp_path):
    def changed(change):
        copy = tmp_path / "changed.nir"
        copy.write_bytes(file.read_bytes())
        with h5py.File(copy, "r+") as f:
            change(f)
        return copy

    def newer(f):
        del f["node/nodes/1/type"], f["version"]
        f["node/nodes/1/type"], f["version"] = "HodgkinHuxley", "9.0"

    def refractory(f):
        f["node/nodes/1/refractory_time"] = np.ones(3)

    def huge(f):
        f.create_dataset("node/nodes/1/more", shape=(10**12,), dtype="f4", chunks=(1024,))

    def unknown_class(f):
        del f["node/nodes/1/metadata/spikeloom"]
        f["node/nodes/1/metadata/spikeloom"] = '{"class": "os.system"}'

    def not_json(f):
        del f["node/nodes/1/metadata/spikeloom"]
        f["node/nodes/1/metadata/spikeloom"] = "{"

    def link(f):
        f["node/nodes/1/r2"] = h5py.ExternalLink("/etc/passwd", "/")

    def missing(f):
        del f["node/nodes/1/tau"]

    def empty(f):
        del f["node"]

    def endless(f):
        node = f["node/nodes/0"]
        del node["type"], node["weight"]
        node["type"], node["input_shape"], node["weight"] = "Conv2d", [np.inf, 3], np.ones((1, 1, 3, 3))
        node["padding"] = 0
        for name in ("stride", "dilation", "groups"):
            node[name] = 1

    for change, match in (
        (newer, r"a HodgkinHuxley \(the node '1'\).*nir 9.0 wrote the file. A newer nir may"),
        (refractory, r"LIF \(the node '1'\) with the fields .*refractory_time.*does not take"),
        (huge, "declares 3725.3 GiB"),
        (unknown_class, "names the neuron os.system, which this version"),
        (not_json, "metadata is not JSON.*reset='zero'"),
        (link, "link to another file"),
        (missing, r"the node '1'\)"),
        (empty, "has no graph in it"),
        (endless, r"a Conv2d \(the node '0'\) whose fields do not fit: cannot convert float infinity"),
    ):
        with pytest.raises(ValueError, match=match):
            snn.import_from_nir(changed(change))
    for change in (unknown_class, not_json):
        assert isinstance(snn.import_from_nir(changed(change), reset="zero").get_submodule("1"), snn.Leaky)
    cut = tmp_path / "cut.nir"
    cut.write_bytes(file.read_bytes()[:2000])
    for path in (cut, __file__):
        with pytest.raises(ValueError, match="cannot be read as a NIR file; is it damaged"):
            snn.import_from_nir(path)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        snn.import_from_nir(str(tmp_path / "nothing.nir"))


def test_damaged_metadata_get_a_sentence():
    graph = snn.export_to_nir(leaky(), torch.rand(1, 3))
    values = graph.nodes["leaky"].metadata["spikeloom_values"]
    for change in ({"beta": np.ones(7)}, {"gamma": np.ones(1)}):
        graph.nodes["leaky"].metadata["spikeloom_values"] = {**values, **change}
        with pytest.raises(ValueError, match=r"'leaky'.*cannot be rebuilt.*reset='zero'"):
            snn.import_from_nir(graph)


def test_metadata_that_were_changed_get_a_sentence():
    """They could say another network than the fields, which are the same as before."""
    graph = snn.export_to_nir(nn.Sequential(snn.SynapticDelay(3, 4), leaky()), torch.rand(1, 3))
    notes = {name: dict(graph.nodes[name].metadata) for name in ("0", "1")}
    values = notes["1"]["spikeloom_values"]
    for name, change in (
        ("1", {"spikeloom_values": {**values, "graded_spikes_factor": np.array([-1.0])}}),
        ("1", {"spikeloom_values": {**values, "beta": np.array([np.nan])}}),
        ("1", {"spikeloom": notes["1"]["spikeloom"].replace('"inhibition": false', '"inhibition": true')}),
        ("1", {"spikeloom": notes["1"]["spikeloom"].replace('"dt": 0.0001', '"dt": "x"')}),
        ("0", {"spikeloom": notes["0"]["spikeloom"].replace('"max_delay": 4', '"max_delay": 3')}),
    ):
        assert {**notes[name], **change} != notes[name]
        graph.nodes[name].metadata = {**notes[name], **change}
        with pytest.raises(ValueError, match=f"'{name}'.*metadata are damaged, or were changed.*reset='zero'"):
            snn.import_from_nir(graph)
        assert len([*snn.import_from_nir(graph, reset="zero").children()]) == 2
        graph.nodes[name].metadata = notes[name]


def test_old_files_are_corrected_where_it_is_clear_how(tmp_path):
    """Files of the NIR paper: no v_reset, an output of another shape, edges that name a node by another name."""
    path = tmp_path / "old.nir"
    nir.write(path, chain(cycle()))
    with h5py.File(path, "r+") as f:
        inner = f["node/nodes/n0"]
        del inner["nodes/lif/v_reset"], f["node/nodes/output/shape"]
        inner.move("nodes/lif", "nodes/lif1")
        f["node/nodes/output/shape"] = np.array([1, 3, 1])
        del f["version"]
    with pytest.warns(UserWarning, match="the subgraph 'n0' name a node 'lif', which must be 'lif1'"):
        net = snn.import_from_nir(path)
    assert isinstance(net.n0_lif1, snn.RLeaky)


def test_single_numbers_as_values_take_the_shape_of_their_input():
    node = nir.LIF(np.array(1e-3), np.array(10.0), np.array(0.0), np.array(1.0))
    net = snn.import_from_nir(chain(node))
    assert net(torch.full((2, 3), 1.5))[0].shape == (2, 3)


def test_a_delay_that_is_a_single_number():
    net = snn.import_from_nir(chain(nir.Delay(np.array(2 * DT)), shape=(1,)))
    assert [net(torch.full((1, 1), float(t)))[0].item() for t in (1, 2, 3, 4)] == [0.0, 0.0, 1.0, 2.0]


def test_names_that_python_has_already():
    nodes = {"input": ENDS["input"], "forward": EYE, "training": lif(), "output": ENDS["output"]}
    names = list(nodes)
    net = snn.import_from_nir(loose(nodes, list(itertools.pairwise(names))))
    assert net(torch.full((2, 3), 1.5))[0].tolist() == [[1.0] * 3] * 2


def test_a_long_chain_and_a_deep_nest(tmp_path):
    graph = chain(*[nir.Scale(ONE) for _ in range(2000)])
    assert torch.equal(snn.import_from_nir(graph)(torch.ones(1, 3))[0], torch.ones(1, 3))
    for _ in range(60):
        graph = around(graph, (3,))
    with pytest.raises(ValueError, match="more than 50 deep"):
        snn.import_from_nir(graph)
    assert DT == 1e-4


def test_a_small_file_whose_links_repeat_a_group(file, monkeypatch):
    monkeypatch.setattr("spikeloom.export.nir._reading.MOST", 1000)
    snn.import_from_nir(file)
    with h5py.File(file, "r+") as f:
        group = f["node"].require_group("metadata").create_group("g0")
        for i in range(1, 40):
            outer = f["node/metadata"].create_group(f"g{i}")
            outer["a"] = outer["b"] = group
            group = outer
    with pytest.raises(ValueError, match="more than 1000 groups and values"):
        snn.import_from_nir(file)


def test_values_that_links_repeat_count_each_time(file, monkeypatch):
    with h5py.File(file, "r+") as f:
        data = f["node"].require_group("metadata").create_dataset("data", data=np.zeros(1000))
        for i in range(100):
            f[f"node/metadata/copy{i}"] = data
    monkeypatch.setattr("spikeloom.export.nir._reading.LARGEST", 400_000)
    with pytest.raises(ValueError, match="declares"):
        snn.import_from_nir(file)


def test_a_longest_delay_that_no_machine_can_keep():
    graph = snn.export_to_nir(nn.Sequential(snn.SynapticDelay(3, 4)), torch.rand(1, 3))
    note = graph.nodes["0"].metadata["spikeloom"]
    unsealed = note.replace('"seal"', '"other"')
    for text in ("10000000000", "Infinity", "-1"):
        graph.nodes["0"].metadata = {"spikeloom": unsealed.replace('"max_delay": 4', f'"max_delay": {text}')}
        with pytest.raises(ValueError, match=r"'0'.*max_delay of"):
            snn.import_from_nir(graph)
