"""The inner loop: local steps of AdamW or SGD on one flat vector of all parameters. Imports torch.

Every parameter and its gradient is a view into two flat vectors, so that the optimizer, the clip, the pseudo-gradient
and the loading of a state are each a few operations, however many layers there are. (torch.optim would do the same step
tensor by tensor, and its import costs 1.2 s and 77 MB, measured.)

Deterministic: for equal (run, round, peer, members, state, optimizer state) the result is equal to the bit on one kind
of device with one number of threads. P: number of parameters.
"""

from __future__ import annotations

import errno
import hashlib
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from ubcp_p2p.errors import ConfigError, TrainingError
from ubcp_p2p.models.evaluation import Evaluation
from ubcp_p2p.models.recipe import Recipe
from ubcp_p2p.models.shards import shard, step_indices
from ubcp_p2p.models.task import Task
from ubcp_p2p.training.errors import Diverged
from ubcp_p2p.training.limits import BF16_PARAMETERS_MIN
from ubcp_p2p.training.state import InnerState as InnerState
from ubcp_p2p.training.state import Vector, is_finite

_ADAM_EPS = 1e-8  # Kingma & Ba 2015
_CLIP_EPS = 1e-6  # torch.nn.utils.clip_grad_norm_'s


AfterStep: TypeAlias = Callable[[int, int, Callable[[], float]], bool]


@dataclass(frozen=True)
class InnerResult:
    """What the local steps of a round came to: steps taken, samples seen, mean loss in nats."""

    steps: int
    samples: int
    loss: float


class InnerOptimizer(Protocol):
    """Steps a flat vector in place."""

    steps: int
    vectors: dict[str, Tensor]

    def step(self, theta: Tensor, gradient: Tensor, lr: float) -> None:
        """Move `theta` (P) along `gradient` (P), which may be overwritten."""
        ...


class AdamW:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019), as torch.optim.AdamW computes it."""

    def __init__(self, parameters: int, device: torch.device, betas: tuple[float, float], decay: _Decay) -> None:
        self.steps = 0
        self.vectors = {name: torch.zeros(parameters, device=device) for name in ("exp_avg", "exp_avg_sq")}
        self._betas = betas
        self._decay = decay

    def step(self, theta: Tensor, gradient: Tensor, lr: float) -> None:
        """One step; `gradient` is overwritten: it serves as scratch memory."""
        first, second = self._betas
        mean, square = self.vectors["exp_avg"], self.vectors["exp_avg_sq"]
        self.steps += 1
        self._decay.apply(theta, lr)
        mean.lerp_(gradient, 1 - first)
        square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
        correction_first = 1 - first**self.steps
        correction_second = math.sqrt(1 - second**self.steps)
        scale = torch.sqrt(square, out=gradient).div_(correction_second).add_(_ADAM_EPS)
        theta.addcdiv_(mean, scale, value=-lr / correction_first)


class SGD:
    """Plain stochastic gradient descent with weight decay."""

    def __init__(self, decay: _Decay) -> None:
        self.steps = 0
        self.vectors: dict[str, Tensor] = {}
        self._decay = decay

    def step(self, theta: Tensor, gradient: Tensor, lr: float) -> None:
        """One step."""
        self.steps += 1
        self._decay.apply(theta, lr)
        theta.add_(gradient, alpha=-lr)


class _Decay:
    """Weight decay on matrices and filters alone: gains and biases are not shrunk."""

    def __init__(self, model: nn.Module, weight_decay: float) -> None:
        self._weight_decay = weight_decay
        self._slices: list[tuple[int, int]] = []  # neighbours are joined
        begin = 0
        for parameter in model.parameters():
            end = begin + parameter.numel()
            if parameter.ndim >= 2:
                if self._slices and self._slices[-1][1] == begin:
                    begin = self._slices.pop()[0]
                self._slices.append((begin, end))
            begin = end

    def apply(self, theta: Tensor, lr: float) -> None:
        if self._weight_decay:
            for begin, end in self._slices:
                theta[begin:end].mul_(1 - lr * self._weight_decay)


def choose_device(name: str) -> torch.device:
    """The device for "auto", "cpu", "cuda" or "cuda:N"; auto takes CUDA where there is one. Raises ConfigError."""
    cuda = torch.cuda.device_count() if name != "cpu" and torch.cuda.is_available() else 0
    if name == "auto":
        name = "cuda" if cuda else "cpu"
    if name == "cpu":
        return torch.device("cpu")
    kind, _, index = name.partition(":")
    if kind != "cuda" or (index and not (index.isdecimal() and len(index) <= 3)):
        raise ConfigError(f"{name!r} is no device", hint='use "auto", "cpu", "cuda", or "cuda:0" and so on')
    if int(index or 0) >= cuda:
        what = f"has {cuda} CUDA devices" if cuda else "has no CUDA device that this torch can use"
        raise ConfigError(f"device {name!r} is not there: this machine {what}", hint='use "auto" or "cpu"')
    return torch.device("cuda", int(index or 0))


def set_up_torch(threads: int) -> None:
    """Make this process's torch deterministic and give it `threads` CPU threads (0 = as many as it finds good)."""
    if threads:
        torch.set_num_threads(threads)
    # Strict: what has no deterministic form is refused. Only so does a GPU's attention take its deterministic backward
    # pass (measured with torch 2.11 on an H100: with warnings alone two equal runs differed).
    # The private name sets the same flag; the public one also imports torch's compiler, which nobody here uses:
    # 1.3 s of CPU and 70 MB in each trainer (measured with torch 2.13).
    torch._C._set_deterministic_algorithms(True, warn_only=False)
    assert torch.are_deterministic_algorithms_enabled()
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # it would slow each step
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False  # convolutions in true float32: a validator on a CPU has nothing else


def round_seed(run_id: bytes, round: int, peer: bytes) -> bytes:
    """What a peer's draws in a round come from, 32 bytes."""
    return hashlib.sha256(b"ubcp/train/1\0" + run_id + round.to_bytes(8, "big") + peer).digest()


def rng(seed: bytes, step: int) -> np.random.Generator:
    """What local step `step` draws from: a place of its own, so that a validator can begin at any step."""
    return np.random.Generator(np.random.Philox(key=int.from_bytes(seed[8:24], "big"), counter=step << 128))


def release_memory() -> None:
    """Give cached accelerator memory back, after a failed allocation."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of Python, numpy, torch or the kernel means that memory ran out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    # torch's CPU allocator has no class of its own: "DefaultCPUAllocator: can't allocate memory: you tried to …"
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)


def bf16_pays(device: torch.device, parameters: int) -> bool:
    """Whether local steps on `device` are to use bfloat16, which has float32's range and so needs no loss scaling.

    A CPU without its instructions is slower with it; and so is a small network on a GPU, whose steps are kernel starts
    more than arithmetic (bench/device.py on an H100: 0.8 to 0.93 times the speed up to 1M parameters, 1.1 at 10M, 2.9
    at 100M).
    """
    return (
        device.type == "cuda"
        and parameters >= BF16_PARAMETERS_MIN
        and torch.cuda.is_bf16_supported(including_emulation=False)
    )


def describe(device: torch.device) -> str:
    """The device in words, for people."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"cpu ({torch.get_num_threads()} threads)" if torch.get_num_threads() > 1 else "cpu (1 thread)"


class InnerLoop:
    """A recipe's network on a device, with its inner optimizer."""

    def __init__(self, recipe: Recipe, task: Task, device: torch.device, *, bf16: bool | None = None) -> None:
        """bf16: whether matrices multiply in bfloat16; None: where it pays (`bf16_pays`)."""
        self.recipe, self._task, self._device = recipe, task, device
        self._model = task.model().to(device)
        named = list(self._model.named_parameters())
        assert not list(self._model.buffers()), "the state of a run has no room for buffers"
        assert all(parameter.dtype == torch.float32 for _, parameter in named)
        self.parameters = sum(parameter.numel() for _, parameter in named)
        self._theta = torch.empty(self.parameters, device=device)
        self._gradient = torch.zeros(self.parameters, device=device)
        begin = 0
        with torch.no_grad():
            for _, parameter in named:
                end = begin + parameter.numel()
                self._theta[begin:end].copy_(parameter.detach().reshape(-1))
                parameter.data = self._theta[begin:end].view(parameter.shape)
                parameter.grad = self._gradient[begin:end].view(parameter.shape)
                begin = end
        decay = _Decay(self._model, recipe.inner.weight_decay)
        self._optimizer: InnerOptimizer = SGD(decay)
        if recipe.inner.optimizer == "adamw":
            self._optimizer = AdamW(self.parameters, device, recipe.inner.betas, decay)
        self._autocast = bf16_pays(device, self.parameters) if bf16 is None else bf16

    @contextmanager
    def in_other_precision(self) -> Iterator[None]:
        """Matrices multiply in float32 where they do in bfloat16, and in bfloat16 where they do in float32."""
        self._autocast = not self._autocast
        try:
            yield
        finally:
            self._autocast = not self._autocast

    @property
    def state_vectors(self) -> tuple[str, ...]:
        """Names of the optimizer's vectors of P values."""
        return tuple(self._optimizer.vectors)

    def read(self) -> Vector:
        """The parameters (P); on the CPU a view that the next step changes."""
        values: Vector = self._theta.detach().cpu().numpy()
        return values

    def write(self, theta: Vector) -> None:
        """Set the parameters (P)."""
        with torch.no_grad():
            self._theta.copy_(torch.from_numpy(theta))

    def save(self) -> InnerState:
        """A copy of the optimizer's memory on the CPU."""
        vectors: dict[str, Vector] = {
            name: np.array(values.cpu().numpy(), copy=True) for name, values in self._optimizer.vectors.items()
        }
        return InnerState(self._optimizer.steps, vectors)

    def restore(self, state: InnerState) -> None:
        """Go back to a saved memory of the same optimizer."""
        assert state.vectors.keys() == self._optimizer.vectors.keys()
        self._optimizer.steps = state.steps
        for name, values in self._optimizer.vectors.items():
            values.copy_(torch.from_numpy(state.vectors[name]))

    def run(
        self,
        run_id: bytes,
        round: int,
        peer: bytes,
        members: tuple[bytes, ...],
        after_step: AfterStep,
        *,
        first: int = 0,
        last: int | None = None,
    ) -> InnerResult:
        """Take the round's local steps from the present parameters; or some of them again, `first` to `last` − 1.

        after_step(steps taken, steps in all, mean_loss) is called after each step and says whether to go on; it may
        raise. mean_loss is costly on a GPU, which must finish its queue to answer. Raises Diverged when the loss or the
        parameters are not finite, TrainingError when this peer has no data in this round.
        """
        recipe = self.recipe
        mine = shard(run_id, round, peer, members, self._task.n_train_items)
        if not len(mine):
            raise TrainingError(
                f"no data is left for this peer: {self._task.n_train_items} items among {len(members)} members",
                hint="train a recipe with more data, or with fewer peers",
            )
        seed = round_seed(run_id, round, peer)
        torch.manual_seed(int.from_bytes(seed[:8], "big"))  # no network draws in its steps; one that did could not be
        # begun in mid round, which test_redo would tell
        loss_sum = torch.zeros((), dtype=torch.float64, device=self._device)
        steps = samples = 0

        def mean_loss() -> float:
            mean = float(loss_sum) / steps
            if not math.isfinite(mean):
                raise Diverged(
                    f"the training loss became {mean} by local step {steps} of round {round}",
                    hint="lower inner.lr, or set inner.clip_norm, in the recipe",
                )
            return mean

        self._model.train()
        for step in range(first, recipe.rounds.local_steps if last is None else last):
            x, y = self._task.batch(step_indices(mine, step, recipe.inner.batch), rng(seed, step))
            x, y = x.to(self._device), y.to(self._device)
            self._gradient.zero_()
            with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._autocast):
                loss = self._task.loss(self._model, x, y)
            loss.backward()  # type: ignore[no-untyped-call]
            with torch.no_grad():
                loss_sum += loss.detach()
                self._clip()
                lr = recipe.learning_rate(round * recipe.rounds.local_steps + step)
                self._optimizer.step(self._theta, self._gradient, lr)
            steps += 1
            samples += len(x)
            if not after_step(step + 1, recipe.rounds.local_steps, mean_loss):
                break
        loss_value = mean_loss()
        if not is_finite(self.read()):
            raise Diverged(
                f"local parameters became non-finite in round {round}",
                hint="lower inner.lr, or set inner.clip_norm, in the recipe",
            )
        return InnerResult(steps, samples, loss_value)

    def evaluate(self) -> Evaluation:
        """Measure the present parameters on held-out data."""
        with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._autocast):
            return self._task.evaluate(self._model, self._device)

    def sample(self, prompt: str, length: int, seed: int, temperature: float) -> str | None:
        """Text from the present parameters, or None when the model generates nothing."""
        return self._task.sample(self._model, prompt, length, seed, temperature)

    def _clip(self) -> None:
        """Scale the gradient so that its norm is at most clip_norm (0 = as it is)."""
        bound = self.recipe.inner.clip_norm
        if bound:
            norm = torch.linalg.vector_norm(self._gradient)
            self._gradient.mul_((bound / (norm + _CLIP_EPS)).clamp(max=1.0))
