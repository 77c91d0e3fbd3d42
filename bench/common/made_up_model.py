#!/usr/bin/env python3
"""Writes a Llama checkpoint of made-up bf16 weights, with nothing but Python's own library.

    bench/common/made_up_model.py FOLDER --layers 32 --shape 14336x4096

Only the gate matrices, which `moefy split` clusters, hold values (of both signs, between 2^-7 and
2^-6); the others are zeros that take no room on disk where the file system knows holes."""

import argparse
import json
import pathlib
import random
import struct

VALUES_AT_ONCE = 1 << 24


def parse_shape(text):
    """"14336x4096" -> neurons, columns."""
    neurons, columns = map(int, text.split("x"))
    return neurons, columns


def tensors_of(layers, neurons, columns):
    """Names and shapes in the order of the file."""
    for layer in range(layers):
        prefix = f"model.layers.{layer}.mlp."
        yield prefix + "gate_proj.weight", (neurons, columns)
        yield prefix + "up_proj.weight", (neurons, columns)
        yield prefix + "down_proj.weight", (columns, neurons)


def write_values(file, count, source):
    """`count` bf16 values: any sign and mantissa, the exponent of 2^-7."""
    high_byte = bytes((byte & 0x80) | 0x3C for byte in range(256))
    low_byte = bytes(byte & 0x7F for byte in range(256))
    while count > 0:
        size = min(count, VALUES_AT_ONCE)
        values = bytearray(2 * size)
        values[0::2] = source.randbytes(size).translate(low_byte)
        values[1::2] = source.randbytes(size).translate(high_byte)
        file.write(values)
        count -= size


def write_model(folder, layers, neurons, columns):
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True)
    header, end = {}, 0
    for name, (rows, width) in tensors_of(layers, neurons, columns):
        begin, end = end, end + 2 * rows * width
        header[name] = {"dtype": "BF16", "shape": [rows, width], "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    source = random.Random(0)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        data = file.tell()
        for name, entry in header.items():
            if "gate_proj" in name:
                file.seek(data + entry["data_offsets"][0])
                write_values(file, neurons * columns, source)
        file.truncate(data + end)
    config = {"model_type": "llama", "hidden_size": columns, "intermediate_size": neurons,
              "num_hidden_layers": layers, "hidden_act": "silu", "num_attention_heads": 1,
              "num_key_value_heads": 1, "vocab_size": 1, "rms_norm_eps": 1e-5}
    (folder / "config.json").write_text(json.dumps(config))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--shape", type=parse_shape, default=(14336, 4096), metavar="NEURONSxCOLUMNS")
    options = parser.parse_args()
    write_model(options.folder, options.layers, *options.shape)


if __name__ == "__main__":
    main()
