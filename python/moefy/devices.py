"""Where a model runs: `--device`."""

import pathlib
import re
import warnings

from .errors import DeviceError


def device_name(text):
    """text, if it is cpu, cuda, or cuda:N. ValueError."""
    if not re.fullmatch(r"cpu|cuda(:\d+)?", text):
        raise ValueError(text)
    return text


def require_device(name, ranks=1):
    """DeviceError unless PyTorch can use the device here; "cuda" means a GPU for each of the `ranks` of
    this host."""
    if name == "cpu":
        return
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what PyTorch has to say of a driver is said below
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count == 0:
        raise DeviceError(f"--device {name}: PyTorch {torch.__version__} finds no NVIDIA GPU that it can"
                          " use; --device cpu needs none")
    index = torch.device(name).index
    if index is None and ranks > count:
        raise DeviceError(f"--device cuda: {ranks} ranks on this host and only {count} GPUs")
    if index is not None and index >= count:
        raise DeviceError(f"--device {name}: the GPUs of this host are cuda:0 to cuda:{count - 1}")


def fitting_backend(device):
    """(backend, its device number, words for it): who of moefy's C++ side works beside a model on this
    device. The same GPU, where this build can use one."""
    import _moefy
    import torch

    where = torch.device(device)
    if where.type != "cuda":
        return "cpu", 0, ""
    if not _moefy.cuda_is_built():
        return "cpu", 0, "; this build of moefy has no CUDA"
    # "cuda" without a number is PyTorch's current one.
    return "cuda", torch.cuda.current_device() if where.index is None else where.index, ""


def return_freed_memory(device):
    """Hands back what PyTorch keeps of a GPU's memory for later, so that others can use it."""
    import torch

    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()


def uses_bf16(precision, device):
    """Whether products are taken in bf16: as `--precision` says, or where the device multiplies it."""
    import torch

    if precision != "auto":
        return precision == "bf16"
    if torch.device(device).type == "cuda":
        return torch.cuda.is_bf16_supported()
    try:
        flags = pathlib.Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags
