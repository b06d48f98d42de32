"""Recording a path from Lightning's and Transformers' trainers."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from thalweg.landscape.trajectory import Trajectory

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback
    from transformers import TrainerCallback


def for_lightning(folder: str | Path, **settings: Any) -> "Callback":
    """A callback for ``Trainer(callbacks=[…])`` that records the weights after each step of the optimizer.

    Args:
        folder: where to write.
        **settings: as of `thalweg.Trajectory`.

    Raises:
        ImportError: neither lightning nor pytorch_lightning is installed.
    """
    base: Any
    try:
        from lightning.pytorch.callbacks import Callback as base
    except ImportError:
        from pytorch_lightning.callbacks import Callback as base  # the same under its older name

    class Recording(base):
        """Records a trajectory."""

        path: Trajectory | None = None
        step = 0

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            if trainer.is_global_zero:  # of several processes one records
                self.path, self.step = Trajectory(pl_module, folder, **settings), trainer.global_step

        def on_train_batch_end(self, trainer: Any, *_: Any, **__: Any) -> None:
            if self.path is not None and trainer.global_step != self.step:  # none of an accumulated batch
                self.step = trainer.global_step
                self.path.record(self.step)

        def teardown(self, *_: Any, **__: Any) -> None:
            if self.path is not None:
                self.path.close()

    return Recording()


def for_transformers(folder: str | Path, **settings: Any) -> "TrainerCallback":
    """A callback for ``Trainer(callbacks=[…])`` that records the weights after each step of the optimizer.

    Args:
        folder: where to write.
        **settings: as of `thalweg.Trajectory`.

    Raises:
        ImportError: transformers is not installed.
    """
    from transformers import TrainerCallback

    class Recording(TrainerCallback):
        """Records a trajectory."""

        path: Trajectory | None = None

        def on_train_begin(self, args: Any, state: Any, control: Any, **known: Any) -> None:
            if state.is_world_process_zero:
                self.path = Trajectory(known["model"], folder, **settings)

        def on_step_end(self, args: Any, state: Any, control: Any, **known: Any) -> None:
            if self.path is not None:
                self.path.record(state.global_step)

        def on_train_end(self, args: Any, state: Any, control: Any, **known: Any) -> None:
            if self.path is not None:
                self.path.close()

    return Recording()
