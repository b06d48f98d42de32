"""A LightningModule and its Trainer.

thalweg race examples/lightning_module.py:main --rules sgd,adam --trials 4
"""

import lightning as pl
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Digits(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def training_step(self, batch, batch_idx):
        x, y = batch
        return nn.functional.cross_entropy(self.net(x), y)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("accuracy", (self.net(x).argmax(1) == y).float().mean())

    def on_validation_epoch_end(self):
        # was: print(self.trainer.callback_metrics["accuracy"])
        self.run.report(accuracy=self.trainer.callback_metrics["accuracy"])

    def configure_optimizers(self):
        # was: return torch.optim.AdamW(self.parameters(), lr=1e-3)
        return self.run.optimizer(self)


# was: def main():
def main(run):
    digits = load_digits()
    data = TensorDataset(torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target))
    train, validation = torch.utils.data.random_split(data, [1400, 397])
    trainer = pl.Trainer(
        # was: max_steps=300,
        max_steps=len(run.steps(300)),
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, val_check_interval=10, check_val_every_n_epoch=None, num_sanity_val_steps=0,
    )  # fmt: skip
    # was: model = Digits()
    model, Digits.run = Digits(), run
    trainer.fit(model, DataLoader(train, batch_size=32, shuffle=True), DataLoader(validation, batch_size=400))
