"""A loop with Hugging Face's Accelerate, which accumulates and clips gradients.

thalweg race examples/accelerate_loop.py:main --rules sgd,adam --trials 4
"""

import torch
from accelerate import Accelerator
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split


def evaluate(model, loader):
    model.eval()
    with torch.no_grad():
        right = sum((model(x).argmax(1) == y).sum().item() for x, y in loader)
    model.train()
    return right / len(loader.dataset)


# was: def main():
def main(run):
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    digits = load_digits()
    data = TensorDataset(torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target))
    train, validation = random_split(data, [1400, 397])
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    # was: optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    optimizer = run.optimizer(model, lr=1e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 200)
    loader, validation = DataLoader(train, batch_size=32, shuffle=True), DataLoader(validation, batch_size=400)
    model, optimizer, loader, scheduler = accelerator.prepare(model, optimizer, loader, scheduler)
    # was: for epoch in range(10):
    for epoch in run.epochs(10, loader):
        for x, y in loader:
            with accelerator.accumulate(model):
                accelerator.backward(nn.functional.cross_entropy(model(x), y))
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
        # was: print(evaluate(model, validation))
        run.report(accuracy=evaluate(model, validation))
