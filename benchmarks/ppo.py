"""How many more frames per second Stable-Baselines3's PPO on CartPole processes with Thalweg's Adam.

``python benchmarks/ppo.py [ROUNDS]`` trains with each optimizer in turn in one process, from the same seed, so that all
see the same episodes.  It prints medians over the rounds, and the median of the ratios within a round.
"""

import os
import platform
import statistics
import sys
import time
from typing import Any

import gymnasium
import torch
from stable_baselines3 import PPO

import thalweg

FRAMES = 6_144
OPTIMIZERS: dict[str, Any] = {
    "torch": torch.optim.Adam,
    "torch, fused": torch.optim.Adam,
    "thalweg": thalweg.optim.Adam,
}


def frames_per_second(name: str) -> float:
    """Train once; returns the frames per second of sampling and learning together, without construction."""
    settings: dict[str, Any] = {"eps": 1e-5} | ({"fused": True} if name.endswith("fused") else {})
    kwargs = {"optimizer_class": OPTIMIZERS[name], "optimizer_kwargs": settings}
    agent = PPO("MlpPolicy", gymnasium.make("CartPole-v1"), policy_kwargs=kwargs, seed=0, device="cpu")
    start = time.perf_counter()
    agent.learn(FRAMES)
    return FRAMES / (time.perf_counter() - start)


def main(rounds: int) -> None:
    """Print the table."""
    for name in OPTIMIZERS:
        frames_per_second(name)  # compiles and loads what is needed once
    found: dict[str, list[float]] = {name: [] for name in OPTIMIZERS}
    names = list(OPTIMIZERS)
    for i in range(rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            found[name].append(frames_per_second(name))
    for name, each in found.items():
        ratio = statistics.median(a / b for a, b in zip(each, found["torch"], strict=True))
        print(f"{name:14} {statistics.median(each):7.0f} frames/s   {ratio:.3f} x torch")
    print(f"{rounds} rounds of {FRAMES:,} frames; torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
