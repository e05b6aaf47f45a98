"""L-BFGS."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from ..autograd.mode import no_grad
from ..tensor import Tensor
from ..tensor.ops.shaping import cat
from .optimizer import Optimizer, check_options, loss_of

_LEAST_CURVATURE = 1e-10  # a step along which the gradient changed less than this is not remembered
_SUFFICIENT_DECREASE, _CURVATURE = 1e-4, 0.9  # c1 and c2 of Wolfe's conditions


class LBFGS(Optimizer):
    """L-BFGS: steps along -H @ grad, with the inverse Hessian H estimated from the last steps and changes of gradient.

    For losses of all the data. `step(closure)` makes up to max_iter iterations. There is one parameter group, and all
    parameters are on one device.

    Args:
        params: leaf tensors.
        lr: length of a step relative to the direction; with a line search, of the first step tried.
        max_iter: iterations of a step().
        max_eval: closure calls of a step(); 5/4 of max_iter unless given.
        tolerance_grad: stop when no element of the gradient is larger.
        tolerance_change: stop when neither loss nor parameters change by more.
        history_size: number of steps that are remembered.
        line_search_fn: None, or "strong_wolfe" for steps that fulfil Wolfe's strong conditions.

    Raises:
        ValueError: an option out of its range, more than one group, no parameters, or a parameter that is no leaf.
        RuntimeError: another line search.

    Nocedal and Wright, Numerical optimization, 2006: algorithms 7.4 and 7.5; 3.5 and 3.6 for the line search.

    Example:
        >>> import paceline as torch
        >>> w = torch.tensor([1.0, -2.0], requires_grad=True)
        >>> optimizer = torch.optim.LBFGS([w], line_search_fn="strong_wolfe")
        >>> def closure():
        ...     optimizer.zero_grad()
        ...     loss = ((w - 3) ** 2).sum()
        ...     loss.backward()
        ...     return loss
        >>> optimizer.step(closure).item()
        29.0
        >>> w
        tensor([3.0000, 3.0000], requires_grad=True)
    """

    def __init__(
        self,
        params: Iterable,
        lr: float = 1,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        history_size: int = 100,
        line_search_fn: str | None = None,
    ) -> None:
        check_options(lr=lr)
        if line_search_fn not in (None, "strong_wolfe"):
            raise RuntimeError(f"only 'strong_wolfe' is supported as line_search_fn, but got {line_search_fn!r}")
        defaults = {
            "lr": lr, "max_iter": max_iter, "max_eval": max_iter * 5 // 4 if max_eval is None else max_eval,
            "tolerance_grad": tolerance_grad, "tolerance_change": tolerance_change, "history_size": history_size,
            "line_search_fn": line_search_fn,
        }  # fmt: skip
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        if self.param_groups:
            raise ValueError("LBFGS doesn't support per-parameter options (parameter groups)")
        super().add_param_group(param_group)

    def step(self, closure: Callable[[], Any]) -> Any:  # type: ignore[override]
        """Iterate until a tolerance or a maximum is reached.

        Args:
            closure: computes the loss and its gradients anew, and returns the loss.

        Returns:
            The loss before the step.
        """
        group = self.param_groups[0]
        state = self.state[group["params"][0]]  # of all parameters, kept where PyTorch keeps it
        state.setdefault("func_evals", 0)
        state.setdefault("n_iter", 0)
        objective = _Objective(closure, group["params"])
        with no_grad():
            loss, grad = objective.here()
            if _largest(grad) > group["tolerance_grad"]:
                self._iterate(objective, loss, grad)
        state["func_evals"] += objective.calls
        return objective.first

    def _iterate(self, objective: _Objective, loss: float, grad: Tensor) -> None:
        group = self.param_groups[0]
        state = self.state[group["params"][0]]
        lr, tolerance = float(group["lr"]), group["tolerance_change"]
        for k in range(1, group["max_iter"] + 1):
            state["n_iter"] += 1
            d = _direction(state, grad, group["history_size"])
            t = lr * min(1.0, 1.0 / float(grad.abs().sum())) if state["n_iter"] == 1 else lr
            state.update(d=d, t=t, prev_flat_grad=grad, prev_loss=loss)
            slope = float(grad @ d)
            if slope > -tolerance:
                break
            objective.choose_line(d)
            if group["line_search_fn"] is not None:
                start, budget = _Point(0.0, loss, grad, slope), group["max_eval"] - objective.calls
                t, loss, grad, _ = _strong_wolfe(objective.along_line, start, t, tolerance / _largest(d), budget)
                state["t"] = t
                objective.move(t)
            else:
                objective.move(t)
                if k < group["max_iter"]:
                    loss, grad = objective.here()
            if objective.calls >= group["max_eval"] or _largest(grad) <= group["tolerance_grad"]:
                break
            if _largest(d) * t <= tolerance or abs(loss - state["prev_loss"]) < tolerance:
                break


class _Point(NamedTuple):
    """What is known at one place of a search line."""

    t: float  # the place
    loss: float
    grad: Tensor
    slope: float  # derivative of the loss by t


class _Objective:
    """The loss and its gradient as functions of one vector of all parameters."""

    def __init__(self, closure: Callable[[], Any], params: Sequence[Tensor]) -> None:
        self.calls = 0
        self.first: Any = None  # what the closure returned first
        self._closure = closure
        self._params = params

    def here(self) -> tuple[float, Tensor]:
        """The loss and its gradient at the parameters as they are."""
        result = loss_of(self._closure)
        self.first = result if self.calls == 0 else self.first
        self.calls += 1
        grads = [p.new_zeros(p.shape) if p.grad is None else p.grad for p in self._params]
        return float(result), cat([g.reshape(-1) for g in grads])

    def choose_line(self, direction: Tensor) -> None:
        """Start a search line where the parameters are."""
        self._start = cat([p.detach().reshape(-1) for p in self._params])
        self._direction = direction

    def move(self, t: float) -> None:
        """Put the parameters to a place on the line."""
        vector, first = self._start + t * self._direction, 0
        for p in self._params:
            p.copy_(vector[first : first + p.numel()].reshape(p.shape))
            first += p.numel()

    def along_line(self, t: float) -> _Point:
        self.move(t)
        loss, grad = self.here()
        return _Point(t, loss, grad, float(grad @ self._direction))


def _largest(vector: Tensor) -> float:
    return float(vector.abs().max())


def _direction(state: dict[str, Any], grad: Tensor, history_size: int) -> Tensor:
    """-H @ grad, after taking the last step into H."""
    if state["n_iter"] == 1:
        state.update(old_dirs=[], old_stps=[], ro=[], H_diag=1.0)
        return -grad
    y, s = grad - state["prev_flat_grad"], state["d"] * float(state["t"])
    curvature = float(y @ s)
    if curvature > _LEAST_CURVATURE:
        for name, value in (("old_dirs", y), ("old_stps", s), ("ro", 1 / curvature)):
            state[name] = [*state[name], value][-history_size:]
        state["H_diag"] = curvature / float(y @ y)
    steps = [(y, s, float(rho)) for y, s, rho in zip(state["old_dirs"], state["old_stps"], state["ro"], strict=True)]
    direction, alphas = -grad, []
    for y, s, rho in reversed(steps):
        alphas.append(rho * float(s @ direction))
        direction -= alphas[-1] * y
    direction *= float(state["H_diag"])
    for (y, s, rho), alpha in zip(steps, reversed(alphas), strict=True):
        direction += (alpha - rho * float(y @ direction)) * s
    return direction


def _strong_wolfe(along_line: Callable[[float], _Point], start: _Point, t: float, width: float, budget: int) -> _Point:
    """A point where the loss has fallen enough and its slope is small; the best one found if the budget runs out.

    Args:
        along_line: evaluates a place.
        start: the place 0.
        t: the first place to try.
        width: of a bracket that is not divided any more.
        budget: evaluations after the first one.
    """

    def is_flat(point: _Point) -> bool:
        return abs(point.slope) <= -_CURVATURE * start.slope

    def is_high(point: _Point) -> bool:
        return point.loss > start.loss + _SUFFICIENT_DECREASE * point.t * start.slope

    # go on until a minimum is passed
    before, point = start, along_line(t)
    for used in range(budget):
        if is_high(point) or (used > 1 and point.loss >= before.loss) or (point.slope >= 0 and not is_flat(point)):
            bracket = (before, point)
            break
        if is_flat(point):
            return point
        t = _cubic_minimum(before, point, point.t + 0.01 * (point.t - before.t), 10 * point.t)
        before, point = point, along_line(t)
    else:
        return min(start, point, key=lambda p: p.loss)

    # narrow the bracket
    low, high = sorted(bracket, key=lambda p: p.loss)
    was_close = False
    for _ in range(used, budget):
        left, right = sorted((low.t, high.t))
        if right - left < width:
            break
        t = _cubic_minimum(low, high, left, right)
        margin = 0.1 * (right - left)
        is_close = min(right - t, t - left) < margin
        if is_close and (was_close or t >= right or t <= left):
            t = right - margin if right - t < t - left else left + margin
            is_close = False
        was_close = is_close
        point = along_line(t)
        if is_high(point) or point.loss >= low.loss:
            low, high = sorted((low, point), key=lambda p: p.loss)
            continue
        if is_flat(point):
            return point
        low, high = point, (low if point.slope * (high.t - low.t) >= 0 else high)
    return low


def _cubic_minimum(a: _Point, b: _Point, least: float, most: float) -> float:
    """Where the cubic through two points with their slopes is smallest, within bounds; their middle if nowhere."""
    a, b = sorted((a, b), key=lambda p: p.t)
    d1 = a.slope + b.slope - 3 * (a.loss - b.loss) / (a.t - b.t)
    square = d1 * d1 - a.slope * b.slope
    root = math.sqrt(square) if square >= 0 else math.nan
    divisor = b.slope - a.slope + 2 * root
    if math.isnan(divisor) or divisor == 0:
        return (least + most) / 2
    return min(max(b.t - (b.t - a.t) * (b.slope + root - d1) / divisor, least), most)
