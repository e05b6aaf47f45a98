"""Recurrent layers: RNN, LSTM and GRU over whole sequences, and their cells for one step."""

from __future__ import annotations

import math
import warnings
from typing import Any

from ..tensor import creation
from ..tensor.ops import shaping
from ..tensor.ops.recurrent import lstm_layer, rnn_layer
from . import functional as F
from . import init
from .module import Module
from .parameter import Parameter
from .utils.rnn import PackedSequence

__all__ = ["GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNBase", "RNNCell", "RNNCellBase"]

_GATES = {"RNN_TANH": 1, "RNN_RELU": 1, "LSTM": 4, "GRU": 3}


class RNNBase(Module):
    """What RNN, LSTM and GRU share.

    Args:
        mode: "RNN_TANH", "RNN_RELU", "LSTM" or "GRU".
        input_size, hidden_size: features of the input and of the hidden state.
        num_layers: layers stacked on each other.
        bias: whether to add biases.
        batch_first: input and output are [n, steps, features] instead of [steps, n, features].
        dropout: probability with which outputs between layers are set to 0 in training.
        bidirectional: run over the sequence in both directions and join the outputs.
        proj_size: LSTM only: project the hidden state to so many features; 0 does not.
        device, dtype: of the parameters.
    """

    def __init__(
        self,
        mode: str,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        for name, value in (("input_size", input_size), ("hidden_size", hidden_size), ("num_layers", num_layers)):
            if not isinstance(value, int):
                raise TypeError(f"{name} should be of type int, got: {type(value).__name__}")
        if hidden_size <= 0:
            raise ValueError("hidden_size must be greater than zero")
        if num_layers <= 0:
            raise ValueError("num_layers must be greater than zero")
        if isinstance(dropout, bool) or not 0 <= dropout <= 1:
            raise ValueError(
                "dropout should be a number in range [0, 1] representing the probability of an element being "
                "zeroed"
            )
        if dropout > 0 and num_layers == 1:
            warnings.warn(
                "dropout option adds dropout after all but last recurrent layer, so non-zero dropout expects "
                f"num_layers greater than 1, but got dropout={dropout} and num_layers={num_layers}",
                stacklevel=3,
            )
        if proj_size and mode != "LSTM":
            raise TypeError(f"proj_size is an option of LSTM, not of {mode}")
        if not 0 <= proj_size < hidden_size:
            raise ValueError("proj_size has to be smaller than hidden_size and not negative")
        self.mode = mode
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.dropout = bias, batch_first, float(dropout)
        self.bidirectional, self.proj_size = bidirectional, proj_size
        gates = _GATES[mode] * hidden_size
        output_size = proj_size or hidden_size
        for layer in range(num_layers):
            for suffix in self._suffixes(layer):
                features = input_size if layer == 0 else output_size * (2 if bidirectional else 1)
                shapes: dict[str, tuple] = {"weight_ih": (gates, features), "weight_hh": (gates, output_size)}
                if bias:
                    shapes |= {"bias_ih": (gates,), "bias_hh": (gates,)}
                if proj_size:
                    shapes |= {"weight_hr": (proj_size, hidden_size)}
                for name, shape in shapes.items():
                    setattr(self, name + suffix, Parameter(creation.empty(shape, device=device, dtype=dtype)))
        self.reset_parameters()

    def _weights(self, suffix: str) -> tuple:
        """Those of one layer in one direction, None for what it does not have."""
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
        return tuple(getattr(self, name + suffix, None) for name in names)

    def _suffixes(self, layer: int) -> list[str]:
        return [f"_l{layer}", f"_l{layer}_reverse"] if self.bidirectional else [f"_l{layer}"]

    def reset_parameters(self) -> None:
        """Draw all parameters uniformly from +-1 / sqrt(hidden_size)."""
        bound = 1 / math.sqrt(self.hidden_size)
        for weight in self.parameters():
            init.uniform_(weight, -bound, bound)

    @property
    def all_weights(self) -> list[list[Parameter]]:
        """The parameters of each layer and direction."""
        suffixes = [s for layer in range(self.num_layers) for s in self._suffixes(layer)]
        return [[p for name, p in self.named_parameters() if name.partition("_l")[2] == s[2:]] for s in suffixes]

    def flatten_parameters(self) -> None:
        """Here for PyTorch's scripts: parameters lie together once an optimizer has them."""

    def forward(self, input: Any, hx: Any = None) -> tuple[Any, Any]:
        packed = isinstance(input, PackedSequence)
        if packed:
            data, counts, order, back = (
                input.data,
                tuple(input.batch_sizes.tolist()),
                input.sorted_indices,
                input.unsorted_indices,
            )
            batched = True
        else:
            batched = self._check_input(input)
            if not batched:
                input = input.unsqueeze(1)
            elif self.batch_first:
                input = input.transpose(0, 1)
            steps, n = input.shape[:2]
            data, counts, order, back = input.reshape(steps * n, input.shape[2]), (n,) * steps, None, None
        states = self._initial(hx, counts[0], data, batched)
        if order is not None and hx is not None:
            states = tuple(s.index_select(1, order) for s in states)
        data, states = self._run(data, counts, states)
        if packed:
            output: Any = PackedSequence(data, *input[1:])
        else:
            output = data.reshape(steps, n, data.shape[-1])
            if not batched:
                output = output.squeeze(1)
            elif self.batch_first:
                output = output.transpose(0, 1)
        if back is not None:
            states = tuple(s.index_select(1, back) for s in states)
        if not batched:
            states = tuple(s.squeeze(1) for s in states)
        return output, states if self.mode == "LSTM" else states[0]

    def _check_input(self, input: Any) -> bool:
        """Whether the input has a batch dimension."""
        if input.ndim not in (2, 3):
            raise ValueError(f"{self._get_name()}: Expected input to be 2D or 3D, got {input.ndim}D instead")
        if input.shape[-1] != self.input_size:
            raise RuntimeError(
                f"input.size(-1) must be equal to input_size. Expected {self.input_size}, got {input.shape[-1]}"
            )
        own = self.weight_ih_l0.dtype
        if input.dtype != own:
            raise ValueError(
                f"RNN input dtype ({input.dtype}) does not match weight dtype ({own}). Convert input: input.to({own}), "
                f"or convert model: model.to({input.dtype})"
            )
        if not input.shape[1 if self.batch_first and input.ndim == 3 else 0]:
            raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
        return input.ndim == 3

    def _initial(self, hx: Any, n: int, data: Any, batched: bool) -> tuple:
        """The state before the first step: [layers * directions, n, features] each, or [n, features] if all zeros."""
        rows = self.num_layers * (2 if self.bidirectional else 1)
        sizes = [self.proj_size or self.hidden_size] + ([self.hidden_size] if self.mode == "LSTM" else [])
        if hx is None:
            return tuple(creation.zeros(n, size, dtype=data.dtype, device=data.device) for size in sizes)
        states = tuple(hx) if self.mode == "LSTM" else (hx,)
        for name, state, size in zip(("hidden[0]", "hidden[1]"), states, sizes, strict=False):
            expected = (rows, n, size) if batched else (rows, size)
            if tuple(state.shape) != expected:
                raise RuntimeError(f"Expected {name} size {expected}, got {list(state.shape)}")
        return states if batched else tuple(s.unsqueeze(1) for s in states)

    def _run(self, data: Any, counts: tuple, states: tuple) -> tuple[Any, tuple]:
        """All layers over rows [sum of counts, features]: counts[0] rows are the first step, counts[1] the second."""
        finals: list = []
        for layer in range(self.num_layers):
            outputs = []
            for suffix in self._suffixes(layer):
                state = tuple(s if s.ndim == 2 else s[len(finals)] for s in states)
                reverse = suffix.endswith("reverse")
                output, *final = _layer(self.mode, data, self._weights(suffix), state, counts, reverse)
                outputs.append(output)
                finals.append(final)
            data = outputs[0] if len(outputs) == 1 else shaping.cat(outputs, -1)
            if self.dropout and layer + 1 < self.num_layers:
                data = F.dropout(data, self.dropout, self.training)
        if len(finals) == 1:
            return data, tuple(shaping.unsqueeze(s, 0) for s in finals[0])
        return data, tuple(shaping.stack(layers) for layers in zip(*finals, strict=True))

    def extra_repr(self) -> str:
        parts = [f"{self.input_size}, {self.hidden_size}"]
        defaults = {
            "proj_size": 0,
            "num_layers": 1,
            "bias": True,
            "batch_first": False,
            "dropout": 0.0,
            "bidirectional": False,
        }
        parts += [f"{name}={getattr(self, name)}" for name, usual in defaults.items() if getattr(self, name) != usual]
        return ", ".join(parts)


def _layer(mode: str, data: Any, weights: tuple, state: tuple, counts: tuple, reverse: bool = False) -> tuple:
    """One layer in one direction: the outputs of all rows, and the state after each sequence's last step."""
    if mode == "LSTM":
        return lstm_layer(data, *weights, *state, counts, reverse)
    return rnn_layer(data, *weights[:4], *state, mode, counts, reverse)


class RNN(RNNBase):
    """h[t] = tanh(W_ih x[t] + b_ih + W_hh h[t-1] + b_hh), or with relu.

    Args:
        input_size, hidden_size, num_layers, nonlinearity ("tanh" or "relu"), bias, batch_first, dropout, bidirectional:
            see RNNBase.

    Shape:
        input [steps, n, input_size], h_0 [layers * directions, n, hidden_size];
        output [steps, n, directions * hidden_size], h_n as h_0.

    Source: Elman, Finding structure in time, 1990.

    Example:
        >>> import paceline as torch
        >>> output, h = torch.nn.RNN(10, 20, 2)(torch.randn(5, 3, 10))
        >>> output.shape, h.shape
        (paceline.Size([5, 3, 20]), paceline.Size([2, 3, 20]))
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if "proj_size" in kwargs:
            raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")
        args_list = list(args)
        self_nonlinearity = args_list.pop(3) if len(args) > 3 else kwargs.pop("nonlinearity", "tanh")
        if self_nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"Unknown nonlinearity '{self_nonlinearity}'. Select from 'tanh' or 'relu'.")
        super().__init__(f"RNN_{self_nonlinearity.upper()}", *args_list, **kwargs)
        self.nonlinearity = self_nonlinearity


class LSTM(RNNBase):
    """Long short-term memory.

        i, f, o = sigmoid(W x[t] + b + U h[t-1] + d) each;  g = tanh(...)
        c[t] = f * c[t-1] + i * g;  h[t] = o * tanh(c[t])

    Args:
        input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size: see RNNBase.

    Shape:
        input [steps, n, input_size], (h_0, c_0) [layers * directions, n, hidden_size] each (h_0: proj_size if given);
        output [steps, n, directions * hidden_size], (h_n, c_n) as (h_0, c_0).

    Source: Hochreiter and Schmidhuber, Long short-term memory, 1997.

    Example:
        >>> import paceline as torch
        >>> output, (h, c) = torch.nn.LSTM(10, 20, 2)(torch.randn(5, 3, 10))
        >>> output.shape, c.shape
        (paceline.Size([5, 3, 20]), paceline.Size([2, 3, 20]))
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__("LSTM", *args, **kwargs)


class GRU(RNNBase):
    """Gated recurrent unit.

        r, z = sigmoid(W x[t] + b + U h[t-1] + d) each
        n = tanh(W_n x[t] + b_n + r * (U_n h[t-1] + d_n));  h[t] = (1 - z) * n + z * h[t-1]

    Args:
        input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional: see RNNBase.

    Shape:
        as of RNN.

    Source: Cho et al., Learning phrase representations using RNN encoder-decoder, 2014.

    Example:
        >>> import paceline as torch
        >>> output, h = torch.nn.GRU(10, 20)(torch.randn(5, 3, 10))
        >>> output.shape, h.shape
        (paceline.Size([5, 3, 20]), paceline.Size([1, 3, 20]))
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if "proj_size" in kwargs:
            raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")
        super().__init__("GRU", *args, **kwargs)


class RNNCellBase(Module):
    """What the cells share: the weights of one step."""

    _mode = "RNN_TANH"

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__()
        self.input_size, self.hidden_size, self.bias = input_size, hidden_size, bias
        gates = _GATES[self._mode] * hidden_size
        shapes = {"weight_ih": (gates, input_size), "weight_hh": (gates, hidden_size)}
        for name, shape in shapes.items():
            setattr(self, name, Parameter(creation.empty(shape, device=device, dtype=dtype)))
        for name in ("bias_ih", "bias_hh"):
            new = Parameter(creation.empty(gates, device=device, dtype=dtype)) if bias else None
            self.register_parameter(name, new)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all parameters uniformly from +-1 / sqrt(hidden_size)."""
        bound = 1 / math.sqrt(self.hidden_size)
        for weight in self.parameters():
            init.uniform_(weight, -bound, bound)

    def _step(self, input: Any, states: tuple | None, count: int) -> tuple:
        """One step from states [n, hidden_size], zeros if None; without the batch dimension if the input has none."""
        if input.ndim not in (1, 2):
            raise ValueError(f"{self._get_name()}: Expected input to be 1D or 2D, got {input.ndim}D instead")
        if input.shape[-1] != self.input_size:
            raise RuntimeError(f"input has inconsistent input_size: got {input.shape[-1]}, expected {self.input_size}")
        for state in states or ():
            if state.ndim not in (1, 2):
                raise ValueError(f"{self._get_name()}: Expected hidden to be 1D or 2D, got {state.ndim}D instead")
        if states is None:
            zeros = creation.zeros(*input.shape[:-1], self.hidden_size, dtype=input.dtype, device=input.device)
            states = (zeros,) * count
        weights = self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh, None
        if input.ndim == 2:
            return _layer(self._mode, input, weights, states, input.shape[:1])[1:]
        rows = (shaping.unsqueeze(x, 0) for x in (input, *states))
        return tuple(shaping.squeeze(s, 0) for s in _layer(self._mode, next(rows), weights, tuple(rows), (1,))[1:])


    def extra_repr(self) -> str:
        parts = [f"{self.input_size}, {self.hidden_size}"]
        parts += ["bias=False"] if not self.bias else []
        if getattr(self, "nonlinearity", "tanh") != "tanh":
            parts.append(f"nonlinearity={self.nonlinearity}")
        return ", ".join(parts)


class RNNCell(RNNCellBase):
    """One step of RNN: h' = tanh(W_ih x + b_ih + W_hh h + b_hh), or with relu.

    Shape:
        input [n, input_size], hidden [n, hidden_size] (zeros if left out); output as hidden.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise RuntimeError(f"Unknown nonlinearity: {nonlinearity}")
        super().__init__(input_size, hidden_size, bias, device, dtype)
        self.nonlinearity = nonlinearity
        self._mode = f"RNN_{nonlinearity.upper()}"

    def forward(self, input: Any, hx: Any = None) -> Any:
        return self._step(input, None if hx is None else (hx,), 1)[0]


class LSTMCell(RNNCellBase):
    """One step of LSTM.

    Shape:
        input [n, input_size], (h, c) [n, hidden_size] each (zeros if left out); returns the new (h, c).
    """

    _mode = "LSTM"

    def forward(self, input: Any, hx: Any = None) -> tuple[Any, Any]:
        h, c = self._step(input, hx, 2)
        return h, c


class GRUCell(RNNCellBase):
    """One step of GRU.

    Shape:
        input [n, input_size], hidden [n, hidden_size] (zeros if left out); output as hidden.
    """

    _mode = "GRU"

    def forward(self, input: Any, hx: Any = None) -> Any:
        return self._step(input, None if hx is None else (hx,), 1)[0]
