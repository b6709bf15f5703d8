"""How precisely networks compute: float32 throughout, TF32 in matrix products, or bfloat16 by autocast."""

from __future__ import annotations

from typing import Literal, cast, get_args

import torch

from ..errors import UserError, shown

Precision = Literal["float32", "tf32", "bf16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


def check_precision(precision: str, device: str) -> Precision:
    """Return a precision by its name; raises UserError for what is none, or what the device does not compute in."""
    kind = torch.device(device).type
    if precision not in PRECISIONS:
        raise UserError(f"--precision {shown(precision)} is none: use {', '.join(PRECISIONS)}")
    if precision == "tf32" and kind != "cuda":
        raise UserError(f"--precision tf32: {device} has no TF32, which CUDA devices have; use float32")
    if precision == "bf16" and kind == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise UserError(f"--precision bf16: {torch.cuda.get_device_name(device)} has no bfloat16; use float32")
    return cast(Precision, precision)


def set_precision(precision: Precision) -> None:
    """Let matrix products and convolutions of this process be computed in TF32 or not; elsewhere nothing changes."""
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
