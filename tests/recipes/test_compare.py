"""The comparison with snnTorch: the same networks, the same time; own loops; pictures of learning curves."""

from dataclasses import replace

import pytest
import torch

import spikeloom as snn
from recipes import __main__ as command
from recipes import compare, curves, table
from recipes.loop import train
from recipes.models import RECIPES
from recipes.store import Where
from recipes.task import Missing
from recipes.tasks import TASKS
from tests.recipes.test_recipes import TINY, tiny

COMPARED = ("lif", "rlif", "own_loop", "rate_loss", "population")


def test_the_networks_of_both_libraries_agree():
    pytest.importorskip("snntorch")
    for name in COMPARED:
        there = compare.counterpart(RECIPES[name])
        assert compare.disagreement(TINY, RECIPES[name], there, 0) < 1e-5, name
        kinds = {
            type(module).__module__.partition(".")[0] for module in there.network(TINY.sizes(tiny("train"))).modules()
        }
        assert "spikeloom" not in kinds, name
        assert "snntorch" in kinds, name
    with pytest.raises(Missing, match="snnTorch has no counterpart of ALIF"):
        compare.counterpart(RECIPES["alif"]).network(TINY.sizes(tiny("train")))
    for name, kind in (("learned_decays", "Leaky"), ("recurrent_delays", "RLeaky")):
        with pytest.raises(Missing, match=f"no counterpart of {kind}"):
            compare.counterpart(RECIPES[name]).network(TINY.sizes(tiny("train")))


def test_a_comparison_that_trains_other_networks_is_refused(tmp_path):
    pytest.importorskip("snntorch")

    def steep(sizes):
        return set_surrogate(RECIPES["lif"].network(sizes))

    def set_surrogate(net):
        for module in net.modules():
            if isinstance(module, snn.Leaky):
                module.spike_grad = snn.surrogate.fast_sigmoid(slope=25)
        return net

    other_gradient = replace(RECIPES["lif"], network=steep)
    for recipe in (RECIPES["temporal_conv"], other_gradient):
        with pytest.raises(Missing, match="train other networks"):
            compare.compare(TINY, recipe, Where("tiny", "lif", 0, tmp_path))
    assert not list(tmp_path.rglob("*.json"))


def test_a_comparison_takes_equal_time_and_is_tested_by_the_table(tmp_path, monkeypatch, capsys):
    pytest.importorskip("snntorch")
    monkeypatch.setitem(TASKS, "tiny", TINY)
    monkeypatch.setitem(RECIPES, "rlif", replace(RECIPES["rlif"], batch=16))
    given = ["--folder", str(tmp_path)]
    assert command.main(["compare", "tiny", "rlif", "--epochs", "4", *given]) == 0
    said = capsys.readouterr().out
    assert "spikeloom: validation" in said
    assert "snntorch: validation" in said
    ((ours, theirs),) = compare.stored_pairs(tmp_path)
    assert (ours["library"], ours["epochs_at_most"], theirs["library"]) == ("spikeloom", 4, "snntorch")
    assert theirs["epochs_at_most"] >= 1
    assert ours["parameters"] == theirs["parameters"]
    assert "test" not in ours
    assert command.main(["table", *given]) == 0
    text = capsys.readouterr().out
    assert "### Side by side with snnTorch" in text
    assert text.count("| tiny | recurrent LIF |") == 2
    assert command.main(["compare", "tiny", "alif", *given]) == 2
    assert "no counterpart" in capsys.readouterr().err
    for wrong in (("tinny", "lif"), ("mackey_glass", "lif"), ("tiny", "gru"), ("tiny", "stdp"), ("tiny", "conv")):
        assert command.main(["compare", *wrong, *given]) == 2, wrong
        assert capsys.readouterr().err.count("\n") == 1, wrong


def test_a_network_with_its_own_loop_is_fused(tmp_path):
    fused = replace(RECIPES["own_loop"], batch=16)
    runs = [
        train(TINY, recipe, Where("tiny", "own_loop", 0, tmp_path / name), epochs=2)
        for name, recipe in (("fused", fused), ("plain", replace(fused, loops=False)))
    ]
    for (loss, score), (plain_loss, plain_score) in zip(runs[0]["curve"], runs[1]["curve"], strict=True):
        assert loss == pytest.approx(plain_loss, rel=1e-3)
        assert score == pytest.approx(plain_score, abs=5)
    where = Where("tiny", "own_loop", 0, tmp_path / "fused")
    test = table.tested(TINY, fused, where, tiny("test"), runs[0])
    assert test["operations"] > 0
    assert 0 < test["spikes"] <= 6


def test_the_picture_has_a_panel_per_task(tmp_path, monkeypatch):
    monkeypatch.setitem(TASKS, "tiny", TINY)
    run = {"task": "tiny", "validation": 90.0, "curve": [[1.0, 50.0], [0.5, 90.0], [0.4, 70.0]]}
    runs = [{**run, "recipe": name} for name in ("lif", "lif", "rlif")]
    assert curves.mean_curve([run, {**run, "curve": [[1.0, 70.0]]}]).tolist() == [60.0, 80.0, 80.0]
    curves.overview(runs, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 1000
    with pytest.raises(Missing, match="no task has two recipes"):
        curves.overview(runs[:1], tmp_path / "curves.png")


def test_convolutions_over_time_are_the_same_step_by_step():
    net = RECIPES["temporal_conv"].network(TINY.sizes(tiny("train"))).eval()
    x = torch.randn(6, 4, 3)
    whole = RECIPES["temporal_conv"].run(net, x, TINY)
    for module in net.modules():
        if hasattr(module, "reset_mem"):
            module.reset_mem()
    steps = torch.stack([net(step) for step in x])
    assert torch.allclose(whole, steps, atol=1e-5)
    changed = torch.cat([x[:3], torch.randn(3, 4, 3)])
    assert torch.equal(RECIPES["temporal_conv"].run(net, changed, TINY)[:3], whole[:3]), "causal"


def test_augmentation_shifts_each_sequence_in_training_only(tmp_path):
    from recipes.models import augmented

    x = torch.arange(1.0, 6.0).view(5, 1, 1).expand(5, 2, 1)
    late = augmented.moved(x, torch.tensor([2, -1]), 0)
    assert late[..., 0].T.tolist() == [[0, 0, 1, 2, 3], [2, 3, 4, 5, 0]]
    up = augmented.moved(torch.arange(3.0).view(1, 1, 3), torch.tensor([1]), 2)
    assert up.flatten().tolist() == [0, 0, 1]
    spikes = (torch.rand(100, 8, 40) < 0.1).float()
    changed = augmented.augment(spikes)
    assert 0.6 < changed.sum() / spikes.sum() < 0.95
    seen = []
    recipe = replace(RECIPES["lif"], augment=lambda x: (seen.append(len(x)), x)[1], batch=16)
    train(TINY, recipe, Where("tiny", "lif", 0, tmp_path), epochs=1)
    assert seen == [6, 6, 6], "the batches of training"
    assert "the same at every step" in str(RECIPES["augmented"].refuses(TASKS["yin_yang"]))
