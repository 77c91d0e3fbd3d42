"""A trained model in the files, names and dtypes of the one that training began from."""

import json
import pathlib
import shutil

import torch

from .errors import InputError, IoError
from .manifest import manifest_of
from .models import load_model


def saved_tensors(student, folder):
    """Writes the student by transformers into `folder` and returns name -> (file, dtype) of it."""
    student.save_pretrained(folder)
    return tensors_of(folder)


def tensors_of(folder):
    """name -> (file, dtype of the file) of all tensors of a model directory."""
    from safetensors import safe_open

    found = {}
    for path in sorted(pathlib.Path(folder).glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():
                found[name] = (path.name, file.get_slice(name).get_dtype())
    return found


def with_weights(source, learned):
    """The converted model of a folder, with these fp32 values of its parameters."""
    model = load_model(str(source))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in learned:
                parameter.copy_(learned[name])
    return model


def write_weights(learned, source, target):
    """Copies the tensors of `source`, those that changed with their new values, under the same names,
    in the same files and dtypes."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    scratch = target / "scratch"
    now = saved_tensors(with_weights(source, learned), scratch)
    before = tensors_of(source)
    if set(now) != set(before):
        odd = sorted(set(now) ^ set(before))
        raise InputError(f"{source}: transformers would save other tensors ({', '.join(odd[:3])}…); the"
                         " folder is not as moefy convert wrote it")
    for file in sorted({file for file, _ in before.values()}):
        tensors = {}
        with safe_open(source / file, "pt") as old:
            metadata = old.metadata()
            for name in old.keys():
                with safe_open(scratch / now[name][0], "pt") as new:
                    tensors[name] = new.get_tensor(name).to(old.get_tensor(name).dtype).contiguous()
        save_file(tensors, target / file, metadata=metadata)
    shutil.rmtree(scratch)


def describe(source, target, record):
    """Everything beside the weights: copied, and marked as trained."""
    for path in sorted(source.iterdir()):
        if path.is_dir() or path.suffix == ".safetensors":
            continue
        shutil.copyfile(path, target / path.name)
    (target / "moefy").mkdir()
    manifest = manifest_of(source)
    manifest["recovered"] = record  # verify and restore look for it
    (target / "moefy" / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    card = target / "README.md"
    text = card.read_text() if card.exists() else ""
    card.write_text(text.rstrip() + f"""

## Recovered

Trained after the conversion by `moefy recover`: {record["steps"]} steps of {record["tokens_a_step"]}
tokens of distillation from the dense model. Experts and routers are no longer the dense model's own
weights, so neither `moefy verify` nor `moefy restore` applies; both do to the model it began from.
""")


def write_output(learned, source, output, record):
    """The folder `output`, complete or not at all: the converted model `source` with the fp32 values of
    `learned` (by parameter name) and a manifest that holds `record`."""
    source, output = pathlib.Path(source), pathlib.Path(output)
    staging = output.with_name(output.name + ".unfinished")
    try:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        write_weights(learned, source, staging)
        describe(source, staging, record)
        if output.exists():
            shutil.rmtree(output)
        staging.rename(output)
    except OSError as error:
        shutil.rmtree(staging, ignore_errors=True)
        raise IoError(f"{output}: cannot write: {error.strerror or error}") from None
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
