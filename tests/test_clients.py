"""Training libraries: each trains with our classes and with torch's, and ends with the same weights.

All are small, seeded and offline.  Warnings of these libraries about each other are ignored, by the library's name.
"""

import os
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.data import DataLoader, TensorDataset

import thalweg

os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "WANDB_MODE": "disabled",
}
for library in ("lightning", "transformers", "accelerate", "stable_baselines3", "skorch"):
    pytest.importorskip(library, reason=f"{library} is not installed; it comes with the extra 'clients'")

pytestmark = [
    pytest.mark.filterwarnings(f"default:::{library}")
    for library in (
        "lightning",
        "transformers",
        "accelerate",
        "stable_baselines3",
        "gymnasium",
        "skorch",
        "torch",
        "pygame",
    )
]
Weights = dict[str, Tensor]
SOURCES = {"torch": torch.optim, "thalweg": thalweg.optim}


def data(n: int = 64) -> TensorDataset:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(n, 8, generator=generator)
    return TensorDataset(x, (x[:, 0] > 0).long())


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 2))


def copied(model: nn.Module) -> Weights:
    return {name: x.detach().clone() for name, x in model.state_dict().items()}


def lightning(source: Any, folder: Path, **settings: Any) -> Weights:
    """Lightning's Trainer with gradient clipping, stopped after two epochs and resumed from its checkpoint."""
    import lightning as pl

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def training_step(self, batch: Any, _: int) -> Tensor:
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            optimizer = source.AdamW(self.parameters(), lr=0.01)
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)]

    def trainer(epochs: int) -> Any:
        return pl.Trainer(
            max_epochs=epochs, gradient_clip_val=0.1, default_root_dir=folder, logger=False, accelerator="cpu",
            enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False, **settings,
        )  # fmt: skip

    loader: Any = DataLoader(data(), batch_size=16)
    first = trainer(2)
    first.fit(Module(), loader)
    first.save_checkpoint(folder / "half.ckpt")
    module = Module()
    trainer(4).fit(module, loader, ckpt_path=str(folder / "half.ckpt"))
    return copied(module.net)


def lightning_mixed(source: Any, folder: Path) -> Weights:
    """The same in mixed precision, with bfloat16."""
    return lightning(source, folder, precision="bf16-mixed")


def lightning_scaled(source: Any, folder: Path) -> Weights:
    """The same with float16 and loss scaling: Lightning clips after unscaling, before the step."""
    from lightning.pytorch.plugins import MixedPrecision

    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=1024.0))
    return lightning(source, folder, plugins=[plugin])


def hugging_face(source: Any, folder: Path) -> Weights:
    """Hugging Face's Trainer on a tiny random BERT, with ``optimizer_cls_and_kwargs``."""
    import transformers

    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    model: Any = transformers.BertForSequenceClassification(config)
    words = torch.randint(20, (32, 6), generator=torch.Generator().manual_seed(1))
    rows = [{"input_ids": row, "labels": int(row[0] > 9)} for row in words]
    arguments = transformers.TrainingArguments(
        output_dir=str(folder), max_steps=12, per_device_train_batch_size=8, learning_rate=1e-2, report_to=[],
        save_strategy="no", use_cpu=True, disable_tqdm=True, logging_strategy="no", warmup_steps=3,
    )  # fmt: skip
    given = (source.AdamW, {"lr": 1e-2, "weight_decay": 0.01})
    trainer: Any = transformers.Trainer(model, arguments, train_dataset=rows, optimizer_cls_and_kwargs=given)  # pyright: ignore
    trainer.train()
    return copied(model)


def accelerate(source: Any, folder: Path) -> Weights:
    """Accelerate, which accumulates gradients over two batches and clips them."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, GradientState

    AcceleratorState._reset_state(True)  # pyright: ignore
    GradientState._reset_state()  # pyright: ignore
    accelerator: Any = Accelerator(cpu=True, gradient_accumulation_steps=2)
    model = network()
    optimizer = source.RMSprop(model.parameters(), lr=1e-2, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 8)
    loader = DataLoader(data(), batch_size=16)
    prepared, optimizer, loader, scheduler = accelerator.prepare(model, optimizer, loader, scheduler)
    for _ in range(4):
        for x, y in loader:
            with accelerator.accumulate(prepared):
                accelerator.backward(nn.functional.cross_entropy(prepared(x), y))
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(prepared.parameters(), 0.5)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
    return copied(model)


def stable_baselines(source: Any, folder: Path) -> Weights:
    """Stable-Baselines3's PPO on CartPole, saved halfway and loaded again."""
    from stable_baselines3 import PPO

    kwargs = {"optimizer_class": source.Adam, "optimizer_kwargs": {"eps": 1e-5}}
    settings: dict[str, Any] = {"n_steps": 64, "batch_size": 32, "n_epochs": 2, "seed": 0, "device": "cpu"}
    agent = PPO("MlpPolicy", "CartPole-v1", policy_kwargs=kwargs, **settings)
    agent.learn(128)
    agent.save(folder / "agent")
    torch.manual_seed(5)
    again = PPO.load(folder / "agent", env=agent.get_env(), device="cpu")
    again.learn(128, reset_num_timesteps=False)
    return copied(again.policy)


def skorch_net(source: Any, folder: Path) -> Weights:
    """Skorch, with prefixed arguments for the optimizer."""
    import skorch

    NeuralNetClassifier: Any = skorch.NeuralNetClassifier

    x, y = data().tensors
    net: Any = NeuralNetClassifier(
        network(), criterion=nn.CrossEntropyLoss, optimizer=source.SGD, optimizer__momentum=0.9,
        optimizer__nesterov=True, lr=0.05, max_epochs=5, batch_size=16, train_split=None, verbose=0,
        iterator_train__shuffle=False,
    )  # fmt: skip
    net.fit(x.numpy(), y.numpy())
    return copied(net.module_)


CLIENTS: list[Callable[[Any, Path], Weights]] = [
    lightning, lightning_mixed, lightning_scaled, hugging_face, accelerate, stable_baselines, skorch_net,
]  # fmt: skip


@pytest.mark.parametrize("client", CLIENTS, ids=lambda f: f.__name__)
def test_ends_with_torchs_weights(client: Callable[[Any, Path], Weights], tmp_path: Path) -> None:
    ends: dict[str, Weights] = {}
    for name, source in SOURCES.items():
        (tmp_path / name).mkdir()
        torch.manual_seed(0)
        stepped: list[tuple[Any, list[tuple[Tensor, Tensor]]]] = []

        def note(optimizer: Any, *_: Any, into: list[Any] = stepped) -> None:
            params = [p for group in optimizer.param_groups for p in group["params"]]
            into.append((optimizer, [(p, p.detach().clone()) for p in params]))

        hook = register_optimizer_step_pre_hook(note)
        ends[name] = client(source, tmp_path / name)
        hook.remove()
        classes: set[type[Any]] = {type(optimizer) for optimizer, _ in stepped}
        ours = {issubclass(cls, thalweg.Optimizer) for cls in classes if cls.__module__.partition(".")[0] in SOURCES}
        assert ours == {name == "thalweg"}
        _, first = stepped[0]
        assert median(float((p.detach() - begun).abs().max()) for p, begun in first) > 1e-3, "it trained"
    for name, expected in ends["torch"].items():
        torch.testing.assert_close(
            ends["thalweg"][name], expected, rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )
