"""`moefy record`: the inputs of a model's FFN layers on text, for the methods and routers that look
at what a model computes. Also `moefy.record` for a model and batches of one's own."""

import collections.abc
import hashlib
import pathlib
import shutil
import sys

import numpy as np
import torch

from . import interrupts, recordings_file
from .choices import DEFAULT_TOKENS, DTYPES
from .errors import InputError, UsageError
from .ffn_inputs import InputWatcher
from .ffn_scales import ScaleWatcher
from .importance import ImportanceSums, kinds_of, require_next_tokens
from .live_weights import require_weights_of
from .models import (ffn_layers, identity_of, load_as_saved, load_tokenizer, longest_sequence,
                     require_causal)
from .progress import Progress
from .ranks import Ranks
from .text_clusters import cluster_texts, embeddings_of
from .texts import calibration_sequences


class Batch:
    """Sequences that run together: ids and mask [count, length], the mask true for real tokens, and
    decoder_ids [count, length] where the caller gave them."""

    def __init__(self, ids, mask, decoder_ids=None):
        columns = mask.any(0).nonzero().reshape(-1)
        if not len(columns):
            raise InputError("a batch holds no tokens")
        # What is padding in every sequence would only change how sums are cut.
        used = slice(int(columns[0]), int(columns[-1]) + 1)
        self.ids, self.mask = ids[:, used], mask[:, used]
        self.decoder_ids = decoder_ids if decoder_ids is None else decoder_ids[:, used]

    @classmethod
    def of(cls, item):
        """From what data loaders yield: a mapping with input_ids and perhaps attention_mask and
        decoder_input_ids, or the ids alone."""
        fields = item if isinstance(item, collections.abc.Mapping) else {"input_ids": item}
        if "input_ids" not in fields:
            raise InputError(f"a batch has no input_ids, only {', '.join(fields)}")
        ids = torch.as_tensor(fields["input_ids"]).cpu()
        if ids.ndim != 2:
            raise InputError(f"input_ids have shape {tuple(ids.shape)}; [batch, length] is expected")
        mask = fields.get("attention_mask")
        mask = torch.ones_like(ids) if mask is None else torch.as_tensor(mask).cpu()
        decoder_ids = fields.get("decoder_input_ids")
        if decoder_ids is not None:
            decoder_ids = torch.as_tensor(decoder_ids).cpu()
        for name, value in (("attention_mask", mask), ("decoder_input_ids", decoder_ids)):
            if value is not None and value.shape != ids.shape:
                raise InputError(f"{name} has shape {tuple(value.shape)}, input_ids have"
                                 f" {tuple(ids.shape)}: all layers need the same tokens")
        return cls(ids, mask.bool(), decoder_ids)

    @property
    def lengths(self):
        """Real tokens of each sequence."""
        return self.mask.sum(1).tolist()

    def first(self, count):
        """The first `count` sequences."""
        decoder_ids = None if self.decoder_ids is None else self.decoder_ids[:count]
        return Batch(self.ids[:count], self.mask[:count], decoder_ids)

    def arguments(self, model, device):
        """Keyword arguments of the model's forward function."""
        fields = {"input_ids": self.ids, "attention_mask": self.mask.long()}
        if model.config.is_encoder_decoder:
            fields["decoder_input_ids"] = self.decoder_ids
            if self.decoder_ids is None:
                start = torch.full_like(self.ids[:, :1], model.config.decoder_start_token_id)
                fields["decoder_input_ids"] = torch.cat([start, self.ids[:, :-1]], 1)
        return {name: value.to(device) for name, value in fields.items()}


def take_batches(items, max_tokens):
    """Batches of at most max_tokens (None: no limit) real tokens in whole sequences."""
    batches, tokens = [], 0
    for item in items:
        batch = Batch.of(item)
        total = np.cumsum(batch.lengths) + tokens
        fitting = len(total) if max_tokens is None else int(np.searchsorted(total, max_tokens,
                                                                            "right"))
        if fitting:
            batches.append(batch.first(fitting) if fitting < len(total) else batch)
            tokens = int(total[fitting - 1])
        if fitting < len(total):
            break
    if not batches:
        raise InputError("no tokens to record" + ("" if max_tokens is None else
                                                  f": --max-tokens {max_tokens} is below the first"
                                                  " sequence"))
    return batches


def digest_of_batches(batches):
    digest = hashlib.sha256()
    for batch in batches:
        for tensor in (batch.ids, batch.mask, batch.decoder_ids):
            if tensor is not None:
                digest.update(repr(tuple(tensor.shape)).encode())
                digest.update(np.ascontiguousarray(tensor.numpy().astype("<i8")).tobytes())
    return digest.hexdigest()[:32]


def to_stored(rows, dtype, layer, first_token):
    """rows [tokens, hidden_size] as the file keeps them. InputError for what it cannot hold."""
    rows = rows.float().cpu()
    finite = torch.isfinite(rows).all(1)
    stored = rows.to(getattr(torch, dtype))
    fits = torch.isfinite(stored).all(1)
    if not fits.all():
        token = first_token + int((~fits).nonzero()[0])
        if not finite.all():
            raise InputError(f"layer {layer}, token {token}: the model computes NaN or infinity")
        raise InputError(f"layer {layer}, token {token}: a value is beyond {dtype}; record with"
                         " --dtype bfloat16 or float32")
    if dtype == "bfloat16":
        return stored.view(torch.int16).numpy().view(np.uint16)
    return stored.numpy()


class Recording:
    """What is recorded of which model; runs on every rank of a torchrun job alike."""

    def __init__(self, checkpoint, batches, output, layers="", dtype="float16", architecture="",
                 clusters=0, importance=None, seed=0):
        """importance: (type, level, kernel), or None for none."""
        self.checkpoint, self.output, self.architecture = checkpoint, str(output), architecture
        self.batches, self.dtype = batches, dtype
        self.layers = ffn_layers(checkpoint, architecture, layers)
        self.clusters, self.importance, self.seed = clusters, importance, seed
        sequences = sum(len(batch.lengths) for batch in batches)
        if clusters > sequences:
            raise UsageError(f"--clusters {clusters}: there are only {sequences} sequences")
        lengths = [sum(batch.lengths) for batch in batches]
        self.first_rows = np.concatenate([[0], np.cumsum(lengths)])
        self.num_tokens = int(self.first_rows[-1])

    def prepare(self, force, embed):
        """Lays the file out or finds it. The number of batches done before, or None if all is.
        embed(): embeddings of the sequences, for clusters."""
        found = identity_of(self.checkpoint, self.architecture)
        config = {"source_fingerprint": found["source_fingerprint"], "dtype": self.dtype,
                  "tokens": self.num_tokens, "text": digest_of_batches(self.batches),
                  "layers": [layer["index"] for layer in self.layers]}
        if self.clusters:
            config["clusters"], config["seed"] = self.clusters, self.seed
        if self.importance:
            config["importance"] = list(self.importance)
        if not force and recordings_file.is_done(self.output, config):
            shutil.rmtree(recordings_file.journal_folder(self.output), ignore_errors=True)
            return None
        attributes = {"model_type": found["model_type"], "architecture": found["architecture"],
                      "num_layers": np.int64(len(found["layer_fingerprints"])),
                      "num_tokens": np.int64(self.num_tokens),
                      "source_fingerprint": found["source_fingerprint"]}
        fields = ("index", "name", "num_neurons", "hidden_size")
        layers = [{**{name: layer[name] for name in fields},
                   "fingerprint": found["layer_fingerprints"][layer["index"]]}
                  for layer in self.layers]
        lengths = np.concatenate([batch.lengths for batch in self.batches])
        sequence_id = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
        return recordings_file.prepare(self.output, attributes, layers, sequence_id, self.dtype,
                                       len(self.batches), config, force,
                                       self.clusters and
                                       (lambda: cluster_texts(embed(), self.clusters, self.seed)))

    def run(self, model, device, ranks, progress):
        """Runs the batches of this rank that are not done yet."""
        # The head's logits are large, and nobody looks at them.
        body = getattr(model, "base_model", model)
        with recordings_file.RecordingsWriter(self.output) as writer:
            if ranks.rank == 0:
                writer.lock()
            mine = [batch for batch in range(ranks.rank, len(self.batches), ranks.size)
                    if not writer.is_finished(batch)]
            bar = progress("recording", len(mine), "batches")
            place = [0]

            def receive(layer, rows):
                writer.write(layer, place[0], to_stored(rows, self.dtype, layer, place[0]))

            with InputWatcher(model, self.layers, receive) as watcher, \
                    ScaleWatcher(model, self.layers) as scales, torch.no_grad():
                for number in mine:
                    batch = self.batches[number]
                    place[0] = int(self.first_rows[number])
                    fields = batch.arguments(model, device)
                    writer.write_scales(number, scales.run(
                        lambda: watcher.run(lambda: body(**fields, use_cache=False), batch.mask),
                        batch.mask))
                    writer.finish_batch(number)
                    bar.advance()
            bar.finish()


    def add_importance(self, model, device, ranks, progress):
        """A second pass, with gradients, over this rank's batches; collective."""
        kind, level, kernel = self.importance
        of_sequence = recordings_file.sequence_clusters(self.output)
        first = np.concatenate([[0], np.cumsum([len(batch.lengths) for batch in self.batches])])
        mine = range(ranks.rank, len(self.batches), ranks.size)
        bar = progress("importance", len(mine), "batches")
        with ImportanceSums(model, self.layers, max(1, self.clusters), kind, level, kernel) as sums:
            def add_mine():
                for number in mine:
                    sums.add(self.batches[number], of_sequence[first[number]: first[number + 1]],
                             device)
                    bar.advance()

            ranks.together(add_mine)
            total = torch.as_tensor(sums.flat())
            ranks.sum(total)
            sums.take(total.numpy())
            bar.finish()
            ranks.first(lambda: recordings_file.add_importance(
                self.output, sums, {"type": kind, "level": level, "kernel": kernel,
                                    "loss": "sum", "tokens": sums.tokens}))


def run_recording(recording, make_model, device, force, progress, inform, timeout=600.0,
                  check_model=lambda: None):
    """The whole job on this rank. Returns whether there was anything to do. check_model() raises what
    speaks against the model before anything is written."""
    with Ranks(timeout) as ranks:
        ranks.together(check_model)
        if device == "cuda" and ranks.size > 1:
            device = f"cuda:{ranks.local_rank}"
        models = []

        def model_here():
            if not models:
                models.append(make_model(device))
            return models[0]

        def embed():
            return embeddings_of(model_here(), recording.batches, device, progress)

        finished = ranks.first(lambda: recording.prepare(force, embed))
        if finished is None:
            inform(f"{recording.output}: already done")
            return False
        if finished:
            inform(f"resuming: {finished} of {len(recording.batches)} batches were done before")
        try:
            model = ranks.together(model_here)
            ranks.together(lambda: recording.run(model, device, ranks, progress))
            ranks.first(lambda: recordings_file.add_scales(recording.output))
            if recording.importance:
                recording.add_importance(model, device, ranks, progress)
        except BaseException:
            if ranks.rank == 0:
                recordings_file.discard_unbegun(recording.output)
            raise
        interrupts.close()
        ranks.first(lambda: recordings_file.publish(recording.output))
        return True


def record(model, dataloader, output, *, checkpoint=None, max_tokens=DEFAULT_TOKENS,
           dtype="float16", layers="", architecture="", clusters=0, importance=None, seed=0,
           force=False, quiet=False):
    """Records the FFN inputs of a stock model on batches of one's own.

    model: a transformers model, run where and as it is (in eval mode, without gradients).
    dataloader: yields mappings with input_ids [batch, length] and perhaps attention_mask (real
    tokens; others are dropped) and decoder_input_ids, or the ids alone. Their token ids, not more,
    are held in memory. Whole sequences are taken, up to max_tokens (None: all).
    output: the HDF5 file. If it is there and complete, nothing happens; if it was interrupted, it
    goes on; anything else there is an error unless force is set.
    checkpoint: the directory that the model was loaded from (default: model.name_or_path).
    dtype: of the values in the file; layers: such as "0-3,7", empty for all.
    clusters: so many clusters of sequences, chosen with seed. importance: (type, level, kernel), such
    as ("feature-change", "sample", "l1"): also what each neuron matters for the loss (importance.py);
    parameters of the model then stop requiring gradients. TypeError and ValueError for anything else.
    InputError naming the tensor if the model's FFN weights are not those of the checkpoint.
    Under torchrun every process calls this with the same batches and records its share."""
    if dtype not in DTYPES:
        raise UsageError(f"dtype '{dtype}' is none of {', '.join(DTYPES)}")
    checkpoint = str(checkpoint or model.name_or_path)
    if not pathlib.Path(checkpoint, "config.json").exists():
        raise UsageError(f"checkpoint '{checkpoint}' is no model directory; name the one that the"
                         " model was loaded from")
    importance = kinds_of(importance)
    if importance:
        require_next_tokens(model)
    recording = Recording(checkpoint, take_batches(dataloader, max_tokens), output, layers, dtype,
                          architecture, clusters, importance, seed)
    was_training = model.training
    model.eval()
    try:
        run_recording(recording, lambda device: model, model.device, force,
                      lambda *work: Progress(*work, quiet=quiet),
                      lambda text: None if quiet else print(text, file=sys.stderr),
                      check_model=lambda: require_weights_of(model, checkpoint, recording.layers))
    finally:
        model.train(was_training)


def batches_of_text(args, model_folder):
    """The batches that the command's options ask for."""
    longest = longest_sequence(model_folder)
    tokenizer = load_tokenizer(model_folder)
    sequences = torch.as_tensor(calibration_sequences(tokenizer, args.text, args.length,
                                                      args.max_tokens, args.seed, at_most=True))
    length = sequences.shape[1]
    if longest and length > longest:
        raise UsageError(f"--length {args.length}: the model takes at most {longest} tokens,"
                         f" beginning-of-text token included")
    if args.max_tokens < length:
        raise UsageError(f"--max-tokens {args.max_tokens} is below one sequence of {length}")
    return take_batches(sequences.split(args.batch_size), None)


def run(args, out):
    if args.importance:
        require_causal(args.model, "--importance", as_saved=True)
    torch.set_num_threads(args.threads)
    recording = Recording(args.model, batches_of_text(args, args.model), args.output, args.layers,
                          args.dtype, args.architecture or "", args.clusters,
                          (args.importance_type, args.importance_level, args.importance_kernel)
                          if args.importance else None, args.seed)
    fresh = run_recording(recording, lambda device: load_as_saved(args.model).to(device),
                          args.device, args.force, Progress.factory(args), out.info,
                          args.timeout)
    size = pathlib.Path(args.output).stat().st_size
    out.result({"recordings": args.output, "tokens": recording.num_tokens,
                "layers": len(recording.layers), "dtype": args.dtype, "bytes": size,
                "fresh": fresh},
               f"{args.output}: {recording.num_tokens} tokens, {len(recording.layers)} layers,"
               f" {size / 1e6:.1f} MB")
