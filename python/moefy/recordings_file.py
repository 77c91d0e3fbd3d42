"""A recordings file (docs/file-formats.md) while it is written.

Its size is known before the first token runs, so all data sets are laid out at once, contiguous, and
rows are then written to their places: the file is whole HDF5 at any time, several processes may write
their own rows, and what was written before an interruption counts. Until it is complete it lies in
OUT.journal/ beside its place, with

    fingerprint.json   what the recordings depend on: a later run must agree, else it is refused
    done               one byte a batch: 1 when its rows are on disk
    scales             float64 [batches, layers, 2]: sums of |FFN output| and |residual stream| of a batch
"""

import fcntl
import json
import os
import pathlib
import shutil
import time

import h5py
import numpy as np

from .choices import DTYPES
from .errors import InputError, IoError, UsageError

FORMAT = "moefy-recordings"
SCHEMA_VERSION = 1
# How values lie in the file; HDF5 has no bfloat16.
STORED = dict(zip(DTYPES, map(np.dtype, ("<f4", "<f2", "<u2"))))
SCALE = np.dtype("<f8")
SYNC_SECONDS = 5.0  # what a power cut may cost


def journal_folder(output):
    return pathlib.Path(f"{output}.journal")


def layer_group(index):
    return f"layers/{index:05d}"


def differences(before, now):
    """What differs between two fingerprints, as text; empty if nothing does."""
    names = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
    return ", ".join(f"{name} ({before.get(name)}, now {now.get(name)})" for name in names)


def stored_config(path):
    """What a finished recordings file depends on. InputError if it is none."""
    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("format") != FORMAT:
                raise InputError(f"{path}: not a recordings file")
            return json.loads(file["config"].asstr()[()])
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{path}: not a recordings file: {error}") from None


def is_done(output, config):
    """Whether OUT is there and complete. UsageError if it holds something else."""
    path = pathlib.Path(output)
    if not path.exists():
        return False
    try:
        found = differences(stored_config(path), config)
    except InputError as error:
        raise UsageError(f"{error}; --force replaces it") from None
    if found:
        raise UsageError(f"{path} holds other recordings: {found}; --force starts anew")
    return True


def prepare(output, attributes, layers, sequence_id, dtype, num_batches, config, force,
            make_clusters=None):
    """Lays the file out in the journal, or finds it there. Returns the number of finished batches. A
    journal of another run gives way if no batch of it is finished.

    make_clusters(): the cluster of each sequence, if there are any. attributes: of the root. layers: dicts with index, name, hidden_size, num_neurons, fingerprint.
    sequence_id: int32 [T], the sequence of each token. config: what the recordings depend on."""
    folder = journal_folder(output)
    fingerprint = folder / "fingerprint.json"
    if force:
        shutil.rmtree(folder, ignore_errors=True)
    if fingerprint.exists():
        found = differences(json.loads(fingerprint.read_text()), config)
        if found and not discard_unbegun(output):
            raise UsageError(f"{folder} is of another run: {found}; --force starts anew")
        if not found:
            return _count_finished(folder)
    clusters = make_clusters()[sequence_id] if make_clusters else None
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _lay_out(folder / "recordings.h5", attributes, layers, sequence_id, clusters, dtype, config)
        (folder / "done").write_bytes(bytes(num_batches))
        (folder / "scales").write_bytes(bytes(num_batches * len(layers) * 2 * SCALE.itemsize))
        unfinished = folder / "fingerprint.json.part"
        unfinished.write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
        for name in ("recordings.h5", "done", "scales", unfinished.name):
            _sync(folder / name)
        unfinished.rename(fingerprint)
        _sync(folder)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise IoError(f"{folder}: cannot write: {error.strerror or error}") from None
    return 0


def _count_finished(folder):
    return int(np.count_nonzero(np.fromfile(folder / "done", np.uint8)))


def discard_unbegun(output):
    """Removes the journal if no batch of it is finished and nobody is writing it. Whether it did."""
    folder = journal_folder(output)
    try:
        with open(folder / "done", "rb") as done:
            fcntl.flock(done, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _count_finished(folder):
                return False
            shutil.rmtree(folder)
            return True
    except OSError:  # there is none, it is in use, or it cannot be removed
        return False


def _lay_out(path, attributes, layers, sequence_id, clusters, dtype, config):
    num_tokens = len(sequence_id)
    with h5py.File(path, "w", libver="earliest") as file:
        file.attrs["format"] = FORMAT
        file.attrs["schema_version"] = np.int64(SCHEMA_VERSION)
        for name, value in attributes.items():
            file.attrs[name] = value
        file["config"] = json.dumps(config, sort_keys=True)
        file["sequence_id"] = sequence_id.astype("<i4")
        if clusters is not None:
            file["cluster_id"] = clusters.astype("<i4")
        for layer in layers:
            group = file.create_group(layer_group(layer["index"]))
            for name, value in layer.items():
                group.attrs["layer_index" if name == "index" else name] = value
            places = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            places.set_layout(h5py.h5d.CONTIGUOUS)
            places.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            places.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
            places.set_obj_track_times(False)
            space = h5py.h5s.create_simple((num_tokens, layer["hidden_size"]))
            h5py.h5d.create(group.id, b"x", h5py.h5t.py_create(STORED[dtype]), space, places)
            group["x"].attrs["dtype"] = dtype
    # The disk shall be full now rather than at the end of a long run.
    with open(path, "r+b") as file:
        os.posix_fallocate(file.fileno(), 0, os.path.getsize(path))


def _sync(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class RecordingsWriter:
    """Writes rows of a file that `prepare` has laid out; one a process."""

    def __init__(self, output):
        self.output = pathlib.Path(output)
        self.folder = journal_folder(output)
        self._offsets = {}  # layer index -> (byte in the file, bytes a row)
        with h5py.File(self.folder / "recordings.h5", "r") as file:
            for group in file["layers"].values():
                values = group["x"]
                self._offsets[int(group.attrs["layer_index"])] = (
                    values.id.get_offset(), values.shape[1] * values.dtype.itemsize)
        self._file = os.open(self.folder / "recordings.h5", os.O_RDWR)
        self._done = os.open(self.folder / "done", os.O_RDWR)
        self._scales = os.open(self.folder / "scales", os.O_RDWR)
        self._unmarked = []
        self._marked_at = time.monotonic()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self._mark()
        finally:
            os.close(self._file)
            os.close(self._done)
            os.close(self._scales)

    def lock(self):
        """Keeps a second moefy away until this object is left. UsageError if there is one."""
        try:
            fcntl.flock(self._done, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"{self.folder}: another moefy is writing it") from None

    def is_finished(self, batch):
        return os.pread(self._done, 1, batch) == b"\x01"

    def write(self, layer, first_row, rows):
        """rows [count, hidden_size] of a layer, in the file's dtype, from token first_row on."""
        begin, row_bytes = self._offsets[layer]
        self._write(self._file, rows, begin + first_row * row_bytes)

    def write_scales(self, batch, sums):
        """sums [layers, 2] of a batch."""
        sums = sums.astype(SCALE)
        self._write(self._scales, sums, batch * sums.nbytes)

    def _write(self, file, values, place):
        data = memoryview(np.ascontiguousarray(values)).cast("B")
        try:
            while data:
                written = os.pwrite(file, data, place)
                data, place = data[written:], place + written
        except OSError as error:
            raise IoError(f"{self.folder}: cannot write: {error.strerror}") from None

    def finish_batch(self, batch):
        """All rows of the batch are written."""
        self._unmarked.append(batch)
        if time.monotonic() - self._marked_at > SYNC_SECONDS:
            self._mark()

    def _mark(self):
        if self._unmarked:
            os.fdatasync(self._file)
            os.fdatasync(self._scales)
        for batch in self._unmarked:
            os.pwrite(self._done, b"\x01", batch)
        self._unmarked = []
        self._marked_at = time.monotonic()


def sequence_clusters(output):
    """int32: the cluster of each sequence of a file that is being written; zeros without clusters."""
    with h5py.File(journal_folder(output) / "recordings.h5", "r") as file:
        sequence_id = file["sequence_id"][:]
        first = np.unique(sequence_id, return_index=True)[1]
        if "cluster_id" not in file:
            return np.zeros(len(first), np.int32)
        return file["cluster_id"][:][first]


def add_scales(output):
    """Means over tokens of each layer's |FFN output| and |residual stream|, from the sums of all batches,
    added up in their order."""
    folder = journal_folder(output)
    try:
        with h5py.File(folder / "recordings.h5", "r+") as file:
            sums = np.fromfile(folder / "scales", SCALE).reshape(-1, len(file["layers"]), 2)
            means = sums.cumsum(0)[-1] / file.attrs["num_tokens"]
            for name, values in zip(("ffn_l1", "residual_l1"), means.T):
                if name in file:
                    del file[name]
                file[name] = np.ascontiguousarray(values)
    except OSError as error:
        raise IoError(f"{folder}: cannot write: {error}") from None


def add_importance(output, sums, attributes):
    """Importance vectors of every layer, beside the inputs."""
    try:
        with h5py.File(journal_folder(output) / "recordings.h5", "r+") as file:
            if "importance" in file:
                del file["importance"]
            group = file.create_group("importance")
            for name, value in attributes.items():
                group.attrs[name] = value
            for index, parts in sums.sums.items():
                for part in parts:
                    group[f"{index:05d}/{part}"] = sums.vectors(index, part)
    except OSError as error:
        raise IoError(f"{journal_folder(output)}: cannot write: {error}") from None


def publish(output):
    """Puts the complete file to its place and removes the journal."""
    folder = journal_folder(output)
    try:
        _sync(folder / "recordings.h5")
        os.replace(folder / "recordings.h5", output)
        _sync(pathlib.Path(output).resolve().parent)
        shutil.rmtree(folder)
    except OSError as error:
        raise IoError(f"{output}: cannot write: {error.strerror}") from None
