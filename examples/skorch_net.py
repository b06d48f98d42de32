"""A classifier for scikit-learn by skorch.

thalweg race examples/skorch_net.py:main --rules sgd,adam --trials 4
"""

import numpy as np
import torch
from sklearn.datasets import load_digits
from skorch import NeuralNetClassifier
from torch import nn

EPOCHS = 10


# was: def main():
def main(run):
    x, y = load_digits(return_X_y=True)
    net = NeuralNetClassifier(
        nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)), criterion=nn.CrossEntropyLoss,
        # was: optimizer=torch.optim.AdamW,
        optimizer=run.optimizer,
        lr=1e-3, batch_size=64, verbose=0, iterator_train__shuffle=True,
    )  # fmt: skip
    # was: for epoch in range(EPOCHS):
    for epoch in run.steps(EPOCHS):
        net.partial_fit(x.astype(np.float32) / 16, y)
        # was: print(net.history[-1, "valid_acc"])
        run.report(accuracy=net.history[-1, "valid_acc"])
