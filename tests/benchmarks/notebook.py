"""What a person would write in a notebook for this study: torchvision, DataLoader, eager modules, one by one.

With the project's initialisation, without which its deep models learn nothing. As a script: trains the cells one after
another with all cores and prints their test losses as JSON.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, Subset
from torchvision import transforms
from torchvision.datasets import MNIST

from dae.config import ModelConfig
from dae.initialisation import draw
from dae.model import DenoisingAutoencoder

MEAN_PIXEL = 0.1307


def noisy(images: torch.Tensor) -> torch.Tensor:
    return torch.clamp(images + 0.5 * torch.randn_like(images), 0, 1)


def train(
    config: dict[str, int],
    data_dir: str,
    fraction: float,
    epochs: int,
    device: str,
    seed: int = 0,
    report: Callable[[dict[str, float]], None] = lambda _: None,
) -> float:
    """The test loss of one model; ``report`` gets the losses of each epoch."""
    torch.manual_seed(seed)
    train_set = MNIST(data_dir, train=True, transform=transforms.ToTensor())
    test_set = MNIST(data_dir, train=False, transform=transforms.ToTensor())
    order = torch.randperm(len(train_set)).tolist()
    validation = DataLoader(Subset(train_set, order[:12000]), batch_size=128)
    training = DataLoader(
        Subset(train_set, order[12000 : 12000 + round(48000 * fraction)]), batch_size=128, shuffle=True, drop_last=True
    )
    model = DenoisingAutoencoder(ModelConfig(**config))
    draw(model, torch.Generator().manual_seed(seed), MEAN_PIXEL, latent_bias=0.0)
    model.to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    criterion = nn.MSELoss()

    def evaluate(loader: DataLoader) -> float:
        model.eval()
        total = 0.0
        with torch.no_grad():
            for images, _ in loader:
                images = images.to(device)
                total += criterion(model(noisy(images)), images).item() * len(images)
        return total / len(loader.dataset)

    for epoch in range(1, epochs + 1):
        model.train()
        total = 0.0
        for images, _ in training:
            images = images.to(device)
            loss = criterion(model(noisy(images)), images)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
        report({"epoch": epoch, "train/loss": total / len(training), "val/loss": evaluate(validation)})
    return evaluate(DataLoader(test_set, batch_size=128))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cells", type=json.loads)
    parser.add_argument("--data-dir")
    parser.add_argument("--fraction", type=float)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--device")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    losses = {
        f"DAE_{depth}_{latent}": train(
            {"depth": depth, "latent": latent}, given.data_dir, given.fraction, given.epochs, given.device, given.seed
        )
        for depth, latent in given.cells
    }
    given.out.write_text(json.dumps(losses))


if __name__ == "__main__":
    main()
