"""The checkpoints of a training that can be stopped and goes on."""

import json
import pathlib
import shutil

import numpy as np
import torch

from .errors import InputError, IoError, UsageError


class Journal:
    """OUT2.journal/: what the training depends on, its last checkpoint, and text that was sampled for it. A
    journal of another run gives way if there is no checkpoint in it."""

    def __init__(self, output, depends_on, force):
        self.folder = pathlib.Path(f"{output}.journal")
        self.output = pathlib.Path(output)
        if force:
            shutil.rmtree(self.folder, ignore_errors=True)
        there = self.folder / "fingerprint.json"
        if there.exists():
            before = json.loads(there.read_text())
            differing = sorted(name for name in {*before, *depends_on}
                               if before.get(name) != depends_on.get(name))
            if not differing:
                return
            if (self.folder / "checkpoint.pt").exists():
                raise UsageError(f"{self.folder} is of another run (other {', '.join(differing)});"
                                 " --force starts anew")
            self.remove()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            there.write_text(json.dumps(depends_on, indent=1, sort_keys=True) + "\n")
        except OSError as error:
            raise IoError(f"{self.folder}: cannot write: {error.strerror}") from None

    def load(self):
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            return None
        try:
            return torch.load(path, weights_only=True)
        except Exception as error:  # torch raises many kinds
            raise InputError(f"{path}: damaged ({type(error).__name__}); --force starts anew") from None

    def save(self, state):
        part = self.folder / "checkpoint.part"
        try:
            torch.save(state, part)
            part.replace(self.folder / "checkpoint.pt")
        except (OSError, RuntimeError) as error:
            raise IoError(f"{self.folder}: cannot write the checkpoint: {error}") from None

    def array(self, name, make):
        """make()'s array, from now on kept here."""
        path = self.folder / f"{name}.npy"
        if not path.exists():
            part = self.folder / f"{name}.part.npy"
            try:
                np.save(part, make())
                part.replace(path)
            except OSError as error:
                raise IoError(f"{part}: cannot write: {error.strerror}") from None
        return np.load(path)

    def remove_if_empty(self):
        """Leaves nothing behind if nothing was finished."""
        if {path.name for path in self.folder.glob("*")} <= {"fingerprint.json"}:
            self.remove()

    def remove(self):
        shutil.rmtree(self.folder, ignore_errors=True)
