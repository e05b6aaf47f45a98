"""torch.distributed.algorithms.ddp_comm_hooks.default_hooks' names."""

from ....nn.parallel.comm_hooks import ErrorFeedbackState, allreduce_hook, bf16_compress_hook, fp16_compress_hook

__all__ = ["ErrorFeedbackState", "allreduce_hook", "bf16_compress_hook", "fp16_compress_hook"]
