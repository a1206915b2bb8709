"""What every metric asks of a feature array, and at which precision its products run. Knows no metric.

Features are (N, D): one row per image. NumPy arrays are used as they are; torch tensors stay on their device.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    import torch

    Features = np.ndarray | torch.Tensor
else:
    Features = Any

Precision = Literal["float32", "bfloat16", "float64"]
_CHECK_ROWS = 8192


def is_tensor(values: object) -> bool:
    """Whether `values` is a torch tensor; never imports torch to find out."""
    return type(values).__module__.partition(".")[0] == "torch" and hasattr(values, "detach")


def check(values: Features, name: str, *, rows: int = 1) -> Features:
    """The same features, float32 or float64 and C-contiguous, or an error that says what is wrong with them.

    Args:
        values: floating point, (N, D); half precisions become float32.
        name: what to call them in the message.
        rows: fewest rows that the caller can use.

    Raises:
        ValueError: not two-dimensional, not floating point, fewer than `rows` rows, no column, NaN or infinity.
    """
    if not is_tensor(values):
        values = np.asarray(values)
    if values.ndim != 2 or values.shape[1] == 0:
        raise ValueError(
            f"{name}: expected features of shape (N, D), got shape {tuple(values.shape)}; pass one row per image"
        )
    if len(values) < rows:
        raise ValueError(f"{name}: expected at least {rows} rows, got {len(values)}; pass more images")
    values = _floating(values, name)
    _check_finite(values, name)
    return values


def check_pair(real: Features, fake: Features, *, rows: int = 1) -> tuple[Features, Features]:
    """Both feature sets checked, with equal widths; NumPy follows the other side onto a torch device.

    Raises:
        ValueError: as `check`, or the widths differ.
    """
    real, fake = check(real, "real", rows=rows), check(fake, "fake", rows=rows)
    if real.shape[1] != fake.shape[1]:
        raise ValueError(
            f"expected features of one width, got {real.shape[1]} for real and {fake.shape[1]} for fake; "
            "encode both sides with the same encoder"
        )
    if is_tensor(real) != is_tensor(fake) or (is_tensor(real) and real.device != fake.device):
        import torch

        device = next(side.device for side in (real, fake) if isinstance(side, torch.Tensor))
        real, fake = torch.as_tensor(real, device=device), torch.as_tensor(fake, device=device)
    if real.dtype != fake.dtype:
        real, fake = _as_double(real), _as_double(fake)
    return real, fake


def to_tensor(values: Features) -> torch.Tensor:
    """A torch view of the features, without a copy where NumPy's memory allows it."""
    import torch

    if isinstance(values, torch.Tensor):
        return values.detach()
    return torch.from_numpy(values if values.flags.writeable else values.copy())


def to_numpy(values: Features) -> np.ndarray:
    """A NumPy view of the features; copied only when they are on an accelerator."""
    return values if isinstance(values, np.ndarray) else values.detach().cpu().numpy()


@contextmanager
def products(precision: Precision) -> Iterator[None]:
    """Matrix products at exactly this precision inside the block, whatever the process has set; restored after it.

    torch keeps the setting per process: "high" float32 products elsewhere would silently become TF32 or bfloat16 here.
    `bfloat16` means float32 in and out with bfloat16 multiplicands (TF32 on a GPU).
    """
    import torch

    switches: list[Any] = [getattr(torch.backends.mkldnn, "matmul", None), torch.backends.cuda.matmul]
    if not all(hasattr(switch, "fp32_precision") for switch in switches):  # before torch 2.9 there is one setting
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("medium" if precision == "bfloat16" else "highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)
        return
    kept = [switch.fp32_precision for switch in switches]
    modes = ("bf16", "tf32") if precision == "bfloat16" else ("ieee", "ieee")
    try:
        for switch, mode in zip(switches, modes, strict=True):
            switch.fp32_precision = mode
        yield
    finally:
        for switch, mode in zip(switches, kept, strict=True):
            switch.fp32_precision = mode


def _floating(values: Any, name: str) -> Any:
    if is_tensor(values):
        import torch

        if not values.dtype.is_floating_point:
            raise ValueError(f"{name}: expected floating point features, got {values.dtype}; encode the images first")
        return values.contiguous() if values.dtype in (torch.float32, torch.float64) else values.float().contiguous()
    if values.dtype.kind != "f":
        raise ValueError(f"{name}: expected floating point features, got {values.dtype}; encode the images first")
    if values.dtype not in (np.float32, np.float64):
        values = values.astype(np.float64 if values.dtype.itemsize > 8 else np.float32)
    return np.ascontiguousarray(values)


def _check_finite(values: Any, name: str) -> None:
    for start in range(0, len(values), _CHECK_ROWS):
        rows = values[start : start + _CHECK_ROWS]
        flat = rows.reshape(-1)
        # One pass at memory speed: NaN and infinity survive a sum of squares. So does overflow, hence the second look.
        with np.errstate(over="ignore", invalid="ignore"):
            if np.isfinite(float(flat @ flat)):
                continue
        finite = np.isfinite(to_numpy(rows)).all(axis=1)
        if not finite.all():
            raise ValueError(
                f"{name}: expected finite features, got NaN or infinity in row {start + int(np.argmin(finite))} "
                f"({int((~finite).sum())} such rows in its block); find the image that made it, or encode in float32"
            )


def _as_double(values: Any) -> Any:
    return values.double() if is_tensor(values) else values.astype(np.float64)
