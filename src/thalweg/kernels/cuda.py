"""The backend of printed Triton kernels on one device: one launch for all parameters that share a formula.

Nothing here waits for the device.  Norms, the factor that clips, whether a step is taken, counts of steps and numbers
of the state stay there; the host hands over what has changed, in copies that take their turn on the stream.
"""

import contextlib
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thalweg.kernels import between, sharded, triton
from thalweg.kernels.batch import Batch, norm, sources
from thalweg.kernels.residents import FIRST, Residents
from thalweg.kernels.work import Guard
from thalweg.printers.triton import Source
from thalweg.rule import Rule

_FOLD = 1024
_GRAIN = 512  # bytes, as torch's allocator aligns tensors
Totals = dict[str, Tensor]


class Cuda(Residents):
    """Steps the parameters of some groups, which are all on one device.

    Attributes:
        skipped: on the device, how many steps were left out for a norm that is not finite.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self._room: dict[Any, tuple[Tensor, Tensor]] = {}
        self._positions: dict[int, Tensor] = {}
        self._meshes: list[sharded.Mesh] | None = None
        self._unsure = False
        self._pinned: Tensor | None = None
        self._sent: list[Tensor] = []
        self._stream: Any = None
        self._recorded = False
        self._guarded: bool | None = None
        self.skipped = torch.zeros(1, dtype=torch.int64, device=device)
        self._limits = torch.zeros(3, dtype=torch.float64, device=device)
        self._limited: tuple[float, ...] = ()

    def renew(self) -> None:
        """Forget what was derived from the parameters."""
        self._room, self._positions, self._guarded, self._meshes = {}, {}, None, None
        self._limited, self._unsure = (), True
        self._stream = torch.cuda.current_stream(self.device) if self.device.type == "cuda" else None

    def number(self, guarded: bool) -> None:
        """Hand over what has changed of the groups' numbers."""
        if triton.capturing(self.device):
            if guarded is not self._guarded:
                raise RuntimeError(FIRST)
            return
        for batch in self.batches:
            if guarded is not self._guarded:
                batch.forget()
            batch.number(self._send)
        self._guarded = guarded

    def refresh(self) -> None:
        """Hand over where things are, if that has changed.

        A step that is captured does so in any case, and each replay repeats it, so steps outside the graph may have
        their gradients elsewhere.  Of replays nobody tells, so after the capture these hand over theirs each time.
        """
        self._recorded = self._recorded or triton.capturing(self.device)
        for batch in self.batches:
            batch.refresh(self._send, self._recorded)

    def reserve(self) -> None:
        """Have pinned memory for the copies of a step that is captured, while nothing may be allocated."""
        size = sum(batch.table.nbytes + _GRAIN for batch in self.batches) + _GRAIN
        if self.device.type == "cuda" and (self._pinned is None or self._pinned.nbytes < size):
            self._pinned = torch.empty(size, dtype=torch.uint8, pin_memory=True)

    def _follow(self) -> None:
        """Have the memory of the tables not reused before the stream is done with it, if it is another's."""
        if self._stream is not None and self._stream != (stream := torch.cuda.current_stream(self.device)):
            for x in (self.live, self.skipped, self._limits, *self._positions.values()):
                x.record_stream(stream)
            for x in (x for room in self._room.values() for x in room):
                x.record_stream(stream)
            for batch in self.batches:
                for x in batch.tables():
                    x.record_stream(stream)

    def begin(self, guard: Guard) -> None:
        """Take notice of a gradient scaler; and of a new limit."""
        self._follow()
        limits = (guard.clip_norm or 0.0, guard.clip_eps, guard.clip_each or 0.0)
        if limits != self._limited or self._recorded:
            self._send(np.array(limits), self._limits)
            self._limited = limits
        if not guard.may_skip and guard.scale is None:
            if self._unsure or self._recorded:
                self.live.fill_(1)
            self._unsure = False
            return
        self._unsure = True
        scale, found = (x if x is None else x.to(self.device, non_blocking=True) for x in (guard.scale, guard.found))
        for batch in self.batches:
            triton.launch(
                triton.words().begin, 1,
                batch.given, len(batch.groups), len(batch.columns), batch.column("c.unscale"),
                self._limits if scale is None else scale, self._limits if found is None else found, self.live,
                SCALED=scale is not None, FOUND=found is not None,
            )  # fmt: skip

    def clip_each(self) -> None:
        """Find the factor of each gradient from clipping by its own norm."""
        whole = self.summed(self.squares("own norm")) if self._sharded() else None
        for k, batch in enumerate(self.batches):
            rows = len(batch.members)
            if whole is None:
                self._run(batch, norm(batch.key, "own norm"), batch.own, (0,))
            else:
                batch.own[:, 0] = whole[self._positions[k]]
            size = triton.rows_block(rows)
            triton.launch(
                triton.words().clip_each,
                -(-rows // size),
                batch.own,
                rows,
                len(batch.own_names),
                self._limits[2:],
                BLOCK=size,
            )

    def set_each(self) -> None:
        """Hand over the factors that the host has found."""
        for batch in self.batches:
            own = np.array([m.work.factors[m.ordinal - m.work.first] for m in batch.members])
            into = torch.empty(len(own), dtype=torch.float64, device=self.device)
            self._send(own, into)
            batch.own[:, 0] = into

    def squares(self, what: str) -> Tensor:
        """The squares of the norms of all gradients, in the order of `members`; see `thalweg.kernels.batch.norm`."""
        found = torch.zeros(len(self.members), dtype=torch.float64, device=self.device)
        for k, (batch, which) in enumerate(zip(self.batches, self.which, strict=True)):
            if k not in self._positions:
                self._positions[k] = torch.from_numpy(which).to(self.device)
            into = torch.zeros(len(batch.members), 1, dtype=torch.float64, device=self.device)
            self._run(batch, norm(batch.key, what), into, (0,))
            found.index_copy_(0, self._positions[k], into[:, 0])
        return found

    def summed(self, squares: Tensor) -> Tensor:
        """The squares of the norms of the whole gradients, where processes have parts of them."""
        return sharded.summed_there(self._sharded(), squares)

    def _sharded(self) -> list[sharded.Mesh]:
        if self._meshes is None:
            self._meshes = sharded.meshes([m.p for m in self.members], self.device)
        return self._meshes

    def limit(self, squares: Tensor, guard: Guard) -> None:
        """Find the factor that clips all gradients together, and whether to take the step."""
        for batch in self.batches:
            triton.launch(
                triton.words().guard, 1,
                squares, len(squares), batch.given, len(batch.groups), len(batch.columns),
                batch.column("c.clip_norm"), self._limits, self.live, self.skipped, CLIP=guard.clip_norm is not None,
                SKIP=guard.skip, SINGLE=guard.single, BLOCK=32 if triton.interpreted() else _FOLD,
            )  # fmt: skip

    def step(self, zero_grad: bool, may_skip: bool) -> None:
        """Step every parameter that is stepped here."""
        used = [batch for batch in self.batches if batch.active.any()]
        together = [(batch.key.formula[0], self._parts(batch, zero_grad, may_skip)) for batch in used]
        answers: list[Any] = [None] * len(together)
        while together:
            asked: list[tuple[type[Rule], Generator[Totals, Totals, None], Totals]] = []
            for (rule, parts), answer in zip(together, answers, strict=True):
                with contextlib.suppress(StopIteration):
                    asked.append((rule, parts, parts.send(answer)))
            whole: dict[type[Rule], Totals] = {}
            for rule, _, own in asked:
                total = whole.setdefault(rule, {})
                for name, x in own.items():
                    total[name] = total[name] + x if name in total else x
            together, answers = [(rule, parts) for rule, parts, _ in asked], [whole[rule] for rule, _, _ in asked]
        assert self._sight is not None
        self._sight.count(zero_grad)
        if self._states is not None and self._states.exposed:
            for batch in used:
                batch.renew()
        self._sight.release()

    def _parts(self, batch: Batch, zero_grad: bool, may_skip: bool) -> Generator[Totals, Totals, None]:
        """A step of a batch: yields what is to be totalled over all parameters, and is sent the totals."""
        words: between.Words | None = None
        for part in sources(batch.rule, batch.key, zero_grad):
            if isinstance(part, Source):
                self._run(batch, part, batch.own, [batch.own_names.index(name) for name in part.sums])
            elif between.is_total(part):
                totals = yield between.totals(part, batch)
                for name, x in totals.items():
                    batch.own[:, batch.own_names.index(name)] = x
            else:
                if triton.capturing(self.device):
                    raise RuntimeError(
                        f"a step of {type(batch.rule).__name__} cannot be captured: between its passes come operations "
                        "on matrices with numbers that the host gives them; capture the forward and backward pass alone"
                    )
                words = words or between.Words(batch, may_skip, self._states)
                words.run(part)
        if words is not None:
            words.finish()
        if not may_skip:
            batch.counts[batch.active] += 1
        else:
            batch.counts[:] = np.nan

    def _run(self, batch: Batch, source: Source, into: Tensor, fields: Sequence[int]) -> None:
        """Compute the numbers of a pass, launch it, and add up what its chunks have summed up, in these columns."""
        n, made = len(batch.members), triton.load(source.text)
        key = (id(batch), id(source))
        if key not in self._room:
            self._room[key] = (
                torch.empty(n, max(source.width, 1), dtype=batch.key.types.arithmetic, device=self.device),
                torch.empty(max(batch.pieces * len(source.sums), 1), dtype=torch.float64, device=self.device),
            )
        scalars, totals = self._room[key]
        size, (block, warps) = triton.rows_block(n), triton.block(source)
        held = [batch.held[name.removeprefix("s.")] for name in source.held]
        exact: Mapping[str, Any] = {"enable_fp_fusion": False} if source.exact else {}
        triton.launch(
            made.numbers, -(-n // size),
            batch.table, batch.given, batch.own, self.live, batch.steps, batch.salts, *held, scalars, n,
            len(batch.columns), batch.wide, len(batch.own_names), width=source.width, BLOCK=size, **exact,
        )  # fmt: skip
        if batch.pieces:
            triton.launch(
            made.chunk, batch.pieces,
                batch.table, batch.chunks, scalars, batch.salts, self.live, totals, batch.wide, width=source.width,
                LONG=triton.LONG, BLOCK=block, ALIGNED=batch.aligned, num_warps=warps, **exact,
            )  # fmt: skip
        for k, field in enumerate(fields):
            triton.launch(
                triton.words().fold, n,
                totals, batch.firsts, into, batch.table, batch.wide, into.shape[1], field, len(source.sums), k,
                BLOCK=32 if triton.interpreted() else _FOLD,
            )  # fmt: skip

    def _send(self, array: NDArray[Any], into: Tensor) -> None:
        """Copy to the device when the stream gets there; the array may be changed meanwhile."""
        given = torch.from_numpy(np.ascontiguousarray(array).reshape(into.shape))
        if self.device.type == "cpu":
            into.copy_(given)
        elif not triton.capturing(self.device):
            # torch keeps this memory until the copy is done.
            pinned = torch.empty(given.shape, dtype=given.dtype, pin_memory=True).copy_(given)
            into.copy_(pinned, non_blocking=True)
        else:
            into.copy_(self._kept(given), non_blocking=True)

    def _kept(self, given: Tensor) -> Tensor:
        """A copy in pinned memory that is kept, since a captured copy reads it again in every replay."""
        size = -(-given.nbytes // _GRAIN) * _GRAIN
        if self._pinned is None or self._pinned.nbytes < size:  # two graphs, one after the other
            self._pinned = torch.empty(size, dtype=torch.uint8, pin_memory=True)
        pinned, self._pinned = self._pinned[: given.nbytes], self._pinned[size:]
        self._sent.append(pinned)
        return pinned.view(given.dtype).view(given.shape).copy_(given)
