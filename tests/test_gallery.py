"""The gallery: every script has the form that the site needs, in one style, and runs within its time."""

import ast
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import spikeloom as snn

ROOT = Path(__file__).parent.parent
GALLERY = ROOT / "docs" / "gallery"
STYLE = ROOT / "docs" / "gallery.mplstyle"
SCRIPTS = sorted(GALLERY.rglob("plot_*.py"))
LONGEST, WIDEST, SECONDS = 150, 7.0, 60


def named(path: Path) -> str:
    return path.relative_to(GALLERY).as_posix()


def failing(rule):
    """The scripts that break a rule, each with what the rule returned."""
    return {named(path): wrong for path in SCRIPTS if (wrong := rule(path.read_text()))}


def test_there_are_sections_with_a_header_and_enough_scripts():
    assert len(SCRIPTS) >= 25
    folders = {path.parent for path in SCRIPTS}
    assert [folder.name for folder in folders if not (folder / "GALLERY_HEADER.rst").is_file()] == []
    assert {path.name for path in GALLERY.iterdir() if path.is_dir() and path.name[0] not in "_."} == {
        folder.name for folder in folders
    }


def test_each_script_begins_with_a_title_and_what_the_reader_can_do_after_it():
    def rule(text: str) -> str:
        lines = (ast.get_docstring(ast.parse(text)) or "").splitlines()
        if len(lines) < 4 or set(lines[1]) != {"="} or len(lines[0]) != len(lines[1]):
            return "no title"
        return "" if lines[3].startswith("After this script you ") else lines[3]

    assert failing(rule) == {}


def test_underlines_of_headings_fit():
    """Sphinx warns of an underline that is too short."""

    def rule(text: str) -> list[str]:
        return [head for head, line in re.findall(r"^# (.+)\n# (-+)$", text, re.M) if len(head) != len(line)]

    assert failing(rule) == {}


def test_each_script_compiles_prints_draws_and_is_short():
    def rule(text: str) -> str:
        calls = {ast.unparse(node.func) for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)}
        missing = {"print", "plt.show"} - calls
        lines = len(text.splitlines())
        return f"never calls {missing}" if missing else f"{lines} lines" if lines > LONGEST else ""

    assert failing(rule) == {}


def test_each_script_is_seeded_and_reads_no_file_of_this_machine():
    foreign = r"/work|/home|/root|\.\./|shared/|urlopen|urlretrieve|download=|requests\."

    def rule(text: str) -> str:
        random = re.search(r"torch\.(rand|bernoulli)|nn\.(Linear|Conv)|snn\.\w*Linear|spikegen\.rate\(", text)
        if random and not re.search(r"manual_seed\(\d|utils\.seed\(\d", text):
            return "no seed"
        found = re.search(foreign, text)
        return found[0] if found else ""

    assert failing(rule) == {}


def test_pictures_have_one_style():
    """Colors are those of the style, by C0 to C6, or grays; figures fit the page; no script has settings of its own."""
    own = r"rcParams|style\.use|rc_context|#[0-9a-fA-F]{6}\b|tab:\w+|\bC[7-9]\b|color=\"(?!C\d|0\.)"

    def rule(text: str) -> list[str]:
        wide = [size for size in re.findall(r"figsize=\(([\d.]+)", text) if float(size) > WIDEST]
        return re.findall(own, text) + wide

    assert failing(rule) == {}
    matplotlib = pytest.importorskip("matplotlib")
    settings = matplotlib.rc_params_from_file(STYLE, use_default_template=False)
    colors = settings["axes.prop_cycle"].by_key()["color"]
    okabe_ito = {"0072B2", "D55E00", "009E73", "CC79A7", "E69F00", "56B4E9"}
    assert {color.lstrip("#") for color in colors[:6]} == okabe_ito
    assert settings["figure.figsize"][0] <= WIDEST


def test_every_neuron_of_the_library_is_in_the_gallery():
    text = (GALLERY / "neurons" / "plot_every_neuron.py").read_text()
    bases = {"SpikingNeuron", "LIF", "EquationNeuron"}
    neurons = {
        name
        for name in snn.__all__
        if isinstance(thing := getattr(snn, name), type)
        and (issubclass(thing, snn.SpikingNeuron) or name in ("LeakyParallel", "AssociativeLeaky"))
    }
    assert len(neurons) > 20
    assert {name for name in neurons - bases if f'"{name}": (lambda' not in text} == set()


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=named)
def test_the_script_runs_in_time(script: Path, tmp_path: Path):
    """In CPU seconds of all its processes, which other work on the machine changes little."""
    for package in {"export_onnx": ("onnx", "onnxruntime"), "nir": ("nir",)}.get(script.stem[5:], ()):
        pytest.importorskip(package)
    begun = resource.getrusage(resource.RUSAGE_CHILDREN)
    settings = {"MPLBACKEND": "agg", "MATPLOTLIBRC": str(STYLE), "OMP_WAIT_POLICY": "passive", "TMPDIR": str(tmp_path)}
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, **settings, "PYTHONPATH": paths},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip()
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert ended.ru_utime + ended.ru_stime - begun.ru_utime - begun.ru_stime < SECONDS
