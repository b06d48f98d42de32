"""PyTorch's MNIST example, on the digits that come with scikit-learn.

thalweg race examples/mnist.py:main --rules sgd,adam --trials 4
"""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn, optim
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader, TensorDataset


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, 1)
        self.conv2 = nn.Conv2d(8, 16, 3, 1)
        self.dropout1 = nn.Dropout(0.25)
        self.dropout2 = nn.Dropout(0.5)
        self.fc1 = nn.Linear(64, 32)
        self.fc2 = nn.Linear(32, 10)

    def forward(self, x):
        x = F.relu(self.conv1(x))
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = self.dropout1(torch.flatten(x, 1))
        x = self.dropout2(F.relu(self.fc1(x)))
        return F.log_softmax(self.fc2(x), dim=1)


def data():
    digits = load_digits()
    x = torch.tensor(digits.images / 16, dtype=torch.float32)[:, None]
    y = torch.tensor(digits.target)
    return TensorDataset(x[:1400], y[:1400]), TensorDataset(x[1400:], y[1400:])


def train(model, device, train_loader, optimizer, epoch):
    model.train()
    for batch_idx, (data, target) in enumerate(train_loader):
        data, target = data.to(device), target.to(device)
        optimizer.zero_grad()
        loss = F.nll_loss(model(data), target)
        loss.backward()
        optimizer.step()
        if batch_idx % 10 == 0:
            print(f"epoch {epoch}, batch {batch_idx}: {loss.item():.6f}")


def test(model, device, test_loader):
    model.eval()
    correct = 0
    with torch.no_grad():
        for data, target in test_loader:
            output = model(data.to(device))
            correct += output.argmax(1).eq(target.to(device)).sum().item()
    return correct / len(test_loader.dataset)


# was: def main():
def main(run):
    epochs, lr, gamma = 3, 1.0, 0.7
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    train_set, test_set = data()
    # was: train_loader = DataLoader(train_set, batch_size=64, shuffle=True)
    train_loader = run.loader(train_set, batch_size=64)
    test_loader = DataLoader(test_set, batch_size=400)
    model = Net().to(device)
    # was: optimizer = optim.Adadelta(model.parameters(), lr=lr)
    optimizer = run.optimizer(model, lr=lr)
    scheduler = StepLR(optimizer, step_size=1, gamma=gamma)
    # was: for epoch in range(epochs):
    for epoch in run.epochs(epochs, train_loader):
        train(model, device, train_loader, optimizer, epoch)
        # was: print(test(model, device, test_loader))
        run.report(accuracy=test(model, device, test_loader))
        scheduler.step()
