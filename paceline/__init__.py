"""Paceline: PyTorch's way of working on NumPy, CuPy/NCCL and MPI."""

__version__ = "0.1.0"
