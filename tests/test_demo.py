"""`python -m spikeloom demo`: a tiny run of every part; what is missing is a sentence."""

import statistics

import pytest
import torch

from spikeloom import demo
from spikeloom.__main__ import main

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def digits():
    return demo.load()


def test_the_digits_are_split_evenly(digits):
    assert (len(digits.train), len(digits.test)) == (1437, 360)
    assert digits.train.dtype == torch.float32
    assert (digits.train.min(), digits.train.max()) == (0, 1)
    for labels in (digits.train_labels, digits.test_labels):
        counts = labels.bincount()
        assert len(counts) == 10
        assert counts.max() <= 1.1 * counts.min()


def test_unrolled_and_stepped_are_the_same_training(digits):
    net, x = demo.network(), digits.train[:16]
    one, other = demo.unrolled(net, x), demo.stepped(net, x)
    assert one.shape == (demo.STEPS, 16, 10)
    assert (one != other).float().mean() < 0.01, "beyond what another rounding of the products explains"


def test_correct_counts_the_digits_whose_neuron_fires_most():
    spk = torch.zeros(3, 2, 10)
    spk[:2, 0, 7] = spk[0, 0, 1] = spk[:, 1, 4] = 1
    assert demo.correct(spk, torch.tensor([7, 3])) == 1


def test_a_tiny_run_prints_everything_and_draws(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(demo, "COMPARED", 1)
    out = tmp_path / "seen.png"
    assert main(["demo", "--epochs", "1", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    for part in ("test accuracy", "training time", "1 epoch,", "snn.unroll", "loop over steps", "numba", str(out)):
        assert part in printed
    assert out.read_bytes().startswith(PNG)
    assert out.stat().st_size > 20_000


def test_the_same_seed_learns_the_same(digits):
    few = demo.Digits(digits.train[:320], digits.train_labels[:320], digits.test, digits.test_labels)

    def trained():
        torch.manual_seed(3)
        return demo.train(demo.network(), few, epochs=4)

    first = trained()
    assert first.test == trained().test
    assert len(first.test) == len(first.train) == 4
    assert first.test[-1] > 0.4
    assert statistics.fmean(first.train) <= 1


def test_what_is_missing_is_named_with_its_extra(monkeypatch, capsys):
    monkeypatch.setattr(demo, "find_spec", lambda module: None if module in ("sklearn", "tqdm") else module)
    assert main(["demo"]) == 1
    assert capsys.readouterr().err == "the demo needs scikit-learn, tqdm; install with: pip install scikit-learn tqdm\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "0"], "--epochs got 0; pass at least 1\n"),
        (["--out", "seen.jpg"], "--out got seen.jpg; pass the path of a .png file in an existing folder\n"),
        (["--out", "no/such/folder/seen.png"], "--out got no/such/folder/seen.png; pass the path of a .png file"),
    ],
)
def test_wrong_arguments_are_sentences(arguments, message, capsys):
    assert main(["demo", *arguments]) == 1
    assert capsys.readouterr().err.startswith(message)


def test_no_command_is_reported_with_the_usage(capsys):
    with pytest.raises(SystemExit):
        main([])
    assert "the following arguments are required: COMMAND" in capsys.readouterr().err
