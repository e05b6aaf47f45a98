"""Writes docs/api.md: what of PyTorch's training API is there, what is not and why. Needs PyTorch installed.

    python -m docs.api
"""

from __future__ import annotations

import importlib
import inspect
import re
import warnings
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "api.md"
NAMES = ROOT / "runtime" / "torch_names.txt"

NAMESPACES = (
    "torch", "torch.Tensor", "torch.nn", "torch.nn.functional", "torch.nn.init", "torch.nn.utils", "torch.optim",
    "torch.optim.lr_scheduler", "torch.optim.swa_utils", "torch.autograd", "torch.autograd.functional",
    "torch.autograd.graph", "torch.func", "torch.linalg", "torch.fft", "torch.special", "torch.utils.data",
    "torch.utils.checkpoint", "torch.distributed", "torch.distributions", "torch.amp",
)  # fmt: skip

# Why a name is not there; the first pattern that matches decides.
REASONS = (
    ("deprecated in PyTorch", r"nn\.init\.[a-z_]*[a-z]$|clip_grad_norm$|Tensor\.(eig|symeig|solve|lstsq|volatile)$|"
     r"weight_norm$|Tensor\.reinforce$|NLLLoss2d|nn\.Container|torch\.(range|legacy_)|reduce_op$|(?<!\.)utils\.spectral_norm$"),
    ("sparse layouts", r"sparse|coo|[_.]cs[rc]|[_.]bs[rc]|crow|ccol|coalesce|col_indices|row_indices|[a-z]smm|"
     r"\.smm|hspmm|sspaddmm|Tensor\.(values|indices|dense_dim|to_dense)$|torch\.(indices|values)_copy"),
    ("quantized numbers", r"\.q_|qscheme|quant|qint|int_repr|bits\d|float8|float4|\.u?int[1-7]$|fbgemm|choose_qparams|"
     r"per_(channel|tensor)_|scaled_(grouped_)?mm"),
    ("named dimensions, which PyTorch itself discourages",
     r"refine_names|rename|align_(to|as|tensors)|Tensor\.names?$"),
    ("compilers and tracers: everything runs as written", r"[sS]cript|jit|traced|tracing|\.fx|export|dynamo|\.cond$|"
     r"while_loop|symbolic|[._]sym_|\.Sym|functionalize|linearize|Fusion|Graph(?!Context)|_ir|parse_|merge_type|"
     r"unify_type|BroadcastingList|boolean_dispatch|IODescriptor"),
    ("forward-mode tensors: use func.jvp", r"forward_ad"),
    ("other devices than CPU and CUDA", r"xpu|mps|hpu|ipu|xla|mtia|vulkan|maia|privateuse|is_meta|xccl|ucc|gloo"),
    ("backends of PyTorch's own", r"cudnn|miopen|mkldnn|openmp|mkl|backend|has_lapack|has_spectral"),
    ("storages: there are dtypes and devices instead", r"[sS]torage"),
    ("leftovers of imports and documentation", r"_notes$|TYPE_CHECKING|USE_|PRIVATE_OPS|\.(AVG|SUM|Tag|bit|jagged)$|"
     r"_MODES$|functional\.Tensor$|init\.Tensor$|special\.Tensor$|DataPipe|datapipe"),
    ("subclass and dispatcher protocols of PyTorch", r"torch_function|[dD]ispatch|Schema|Type$|AliasDb|Await|Future|"
     r"Argument|torch\.(Node|Block|Value|Use|fork|wait)$|NestedIOFunction|CheckpointFunction|SelectiveCheckpoint"),
    ("sharded and remote training, rendezvous through stores",
     r"Store$|rpc|shard|P2P|mesh|Mesh|GroupMember|[dD]ebug_?[lL]evel|"
     r"monitored|Logger|Reducer|breakpoint|_pg_|shrink_group|split_group|record_comm|Dist\w*Error|GradBucket"),
    ("process-wide switches without a meaning here", r"determin|_warn|autocast_\w|vitals?|flush_denormal|"
     r"matmul_precision|num_interop|default_tensor_type|cpu_capability|multithreading|init_num_threads"),
)  # fmt: skip
INTERNAL = "PyTorch's internals, without documentation there"
NOT_YET = "not yet"


def names_of(namespace: str) -> list[str]:
    """The public names of a namespace of PyTorch."""
    owner = _resolve(namespace)
    listed = getattr(owner, "__all__", None) or dir(owner)
    unlisted = namespace in ("torch", "torch.nn.functional")  # their __all__ leaves out much of what people use
    found = set(listed) | {n for n in dir(owner) if unlisted or inspect.ismodule(inspect.getattr_static(owner, n))}
    return sorted(name for name in found if not name.startswith("_") and _is_api(owner, name))


def _is_api(owner: Any, name: str) -> bool:
    value = inspect.getattr_static(owner, name, None)
    if value is None:
        return False
    if inspect.ismodule(value):
        return value.__name__ == f"{owner.__name__}.{name}"
    home = getattr(value, "__module__", None) or "torch"
    return home.startswith("torch") or not isinstance(home, str)


def _resolve(path: str) -> Any:
    """The object of a dotted name: a module, or an attribute of one."""
    try:
        return importlib.import_module(path)
    except ImportError:
        module, _, name = path.rpartition(".")
        return getattr(_resolve(module), name)


def is_done(path: str) -> bool:
    """Whether Paceline has what PyTorch calls by this name."""
    try:
        return _resolve(path.replace("torch", "paceline", 1)) is not None
    except AttributeError:
        return False


def reason(namespace: str, name: str) -> str:
    """Why a name is not there."""
    for text, pattern in REASONS:
        if re.search(pattern, f"{namespace}.{name}"):
            return text
    value = inspect.getattr_static(_resolve(namespace), name)
    undocumented = not str(getattr(value, "__doc__", None) or "").strip()
    return INTERNAL if undocumented and (callable(value) or inspect.ismodule(value)) else NOT_YET


def first_sentence(path: str) -> str:
    """The first sentence of Paceline's docstring, if it has one of its own."""
    owner, _, name = path.replace("torch", "paceline", 1).rpartition(".")
    text = inspect.getdoc(getattr(_resolve(owner), name)) or ""
    line = " ".join(text.split("\n\n")[0].split())
    return re.split(r"(?<=\.)\s(?=[A-Z`])", line)[0] if not line.startswith(("int(", "bool(")) else ""


def page() -> tuple[str, list[str]]:
    """The page, and all names of PyTorch's that it is about."""
    _resolve("paceline.Tensor")  # the package takes its names over when the first of them is asked for
    sections, summary, every = [], [], []
    for namespace in NAMESPACES:
        names = names_of(namespace)
        every += [f"{namespace}.{name}" for name in names]
        done = [name for name in names if is_done(f"{namespace}.{name}")]
        absent: dict[str, list[str]] = {}
        for name in names:
            if name not in done:
                absent.setdefault(reason(namespace, name), []).append(name)
        waiting = len(absent.get(NOT_YET, ()))
        summary.append(f"| {namespace} | {len(done)} | {waiting} | {len(names) - len(done) - waiting} |")
        sections.append(f"## {namespace}\n\n" + "\n".join(_done_line(namespace, name) for name in done))
        for why, group in sorted(absent.items(), key=lambda item: (item[0] != NOT_YET, item[0])):
            sections.append(f"Absent ({why}): " + ", ".join(f"`{name}`" for name in group))
    own = _own_names(set(every))
    if own:
        sections.append("## Names of Paceline's own\n\n" + "\n".join(own))
    table = "\n".join(["| namespace | done | not yet | left out |", "|---|---:|---:|---:|", *summary])
    return f"{_HEAD}\n{table}\n\n" + "\n\n".join(sections) + "\n", every


_HEAD = """# What of PyTorch's training API is there

Written by `python -m docs.api`; do not edit. Every public name of PyTorch's is listed once, with what it does here, or
with the reason why it is absent. Asking for an absent name raises an AttributeError that says so.
"""


def _done_line(namespace: str, name: str) -> str:
    sentence = first_sentence(f"{namespace}.{name}")
    return f"- `{namespace}.{name}`" + (f": {sentence}" if sentence else "")


def _own_names(theirs: set[str]) -> list[str]:
    """Public names that PyTorch does not have."""
    found = []
    for namespace in NAMESPACES:
        ours = namespace.replace("torch", "paceline", 1)
        try:
            owner = _resolve(ours)
        except (ImportError, AttributeError):
            continue
        listed = getattr(owner, "__all__", None) or [n for n in vars(owner) if not n.startswith("_")]
        for name in sorted(listed):
            value = inspect.getattr_static(owner, name)
            if f"{namespace}.{name}" in theirs or inspect.ismodule(value) or not hasattr(value, "__doc__"):
                continue
            if isinstance(value, type | type(page)):
                found.append(f"- `{ours}.{name}`: {first_sentence(f'{namespace}.{name}')}")
    return found


def main() -> None:
    warnings.simplefilter("ignore")  # of deprecated names, which we only look at
    text, every = page()
    PAGE.write_text(text)
    NAMES.write_text("\n".join(every) + "\n")
    print(text[: text.index("## ")])


if __name__ == "__main__":
    main()
