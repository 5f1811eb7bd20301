"""Train on handwritten digits with Lightning. No adapter is required: a spiking network is an nn.Module.

Run `python examples/lightning_digits.py`. It requires scikit-learn and Lightning
(`pip install scikit-learn lightning`), and exits with a message if Lightning is not installed.
"""

import argparse
import warnings
from importlib.util import find_spec
from typing import Any

import torch
from plain_loop import counts, data, network
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

import spikeloom as snn

HAS_LIGHTNING = find_spec("lightning") is not None
if HAS_LIGHTNING:
    import lightning

Base: Any = lightning.LightningModule if HAS_LIGHTNING else nn.Module


class Digits(Base):
    """A LightningModule: training step, validation step, optimizer."""

    def __init__(self, rate: float = 5e-3):
        super().__init__()
        self.rate = rate
        self.net = network()
        self.accuracy = MulticlassAccuracy(num_classes=10, average="micro")

    def training_step(self, batch: tuple[Tensor, Tensor], number: int) -> Tensor:
        images, labels = batch
        loss = nn.functional.cross_entropy(counts(self.net, images), labels)
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], number: int) -> None:
        images, labels = batch
        self.accuracy(counts(self.net, images), labels)
        self.log("validation accuracy", self.accuracy, on_epoch=True, prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.rate)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if not HAS_LIGHTNING:
        print("this example requires Lightning; install it with: pip install lightning")

        return

    warnings.filterwarnings("ignore", ".*does not have many workers")  # the digits are in memory
    snn.utils.seed(arguments.seed)
    batches, held_out = data(arguments.seed)
    trainer = lightning.Trainer(
        max_epochs=arguments.epochs,
        accelerator="cpu",
        log_every_n_steps=10,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    trainer.fit(Digits(), batches, held_out)
    print(f"validation accuracy {trainer.callback_metrics['validation accuracy']:.1%}")


if __name__ == "__main__":
    main()
