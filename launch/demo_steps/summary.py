"""Prints the table that ends launch/demo.

usage: summary.py DENSE MAP.h5 MOE COMPARE.json SECONDS_FOLDER
"""

import json
import sys
from pathlib import Path

import h5py
from safetensors import safe_open

STEPS = ("model", "split", "convert", "verify", "inspect", "compare")

WHY_SPARSE_IS_POOR = """
The sparse rows are poor, as they must be: these routers are made from the weights alone and have
never seen what flows into a layer, so they often leave out experts that a token needs. With all
experts on the function is the dense model's. The table below has one that was calibrated."""


def folder_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def parameters(folder: Path) -> tuple[int, int]:
    """Parameters of a checkpoint: all, and those inside routed experts."""
    total, experts = 0, 0
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="numpy") as tensors:
            for name in tensors.keys():
                count = 1
                for extent in tensors.get_slice(name).get_shape():
                    count *= extent
                total += count
                if ".experts." in name:
                    experts += count
    return total, experts


def layer_figures(map_file: Path) -> dict:
    """Sums and extremes over the layers of the map: plain HDF5, read without moefy."""
    with h5py.File(map_file) as file:
        layers = [dict(layer.attrs) for layer in file["layers"].values()]
        sizes = [
            size
            for layer in file["layers"].values()
            for size in (layer["expert_offset"][1:] - layer["expert_offset"][:-1]).tolist()
        ]
    inertia = sum(layer["inertia"] for layer in layers)
    at_random = sum(layer["inertia_random"] for layer in layers)
    return {
        "layers": len(layers),
        "smallest": min(sizes),
        "largest": max(sizes),
        "ratio": inertia / at_random,
        "largest_gap": max(layer["duality_gap"] for layer in layers),
        "converged": sum(bool(layer["converged"]) for layer in layers),
    }


def megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"


def millions(count: int) -> str:
    return f"{count / 1e6:.1f} M"


def size_rows(dense: Path, map_file: Path, moe: Path) -> list[tuple[str, str]]:
    return [
        ("dense checkpoint", megabytes(folder_bytes(dense))),
        ("expert map", megabytes(map_file.stat().st_size)),
        ("MoE checkpoint", megabytes(folder_bytes(moe))),
    ]


def parameter_rows(
    dense: Path, moe: Path, perplexity: dict, num_experts: int
) -> list[tuple[str, str]]:
    """One row a setting: parameters in all, parameters a token uses, perplexity."""
    dense_total, _ = parameters(dense)
    total, experts = parameters(moe)

    def row(name: str, active: int, of: int, key: str) -> tuple[str, str]:
        used = f"{millions(active)} of {millions(of)}"
        return name, f"{used:<22}perplexity {perplexity[key]:>12,.2f}"

    rows = [row("dense", dense_total, dense_total, "dense")]
    for key in perplexity:
        if key != "dense":
            active = total - experts + experts * int(key) // num_experts
            rows.append(row(f"{key} of {num_experts} experts", active, total, key))
    return rows


def quality_rows(figures: dict) -> list[tuple[str, str]]:
    widths = f"{figures['smallest']} to {figures['largest']}"
    return [
        ("neurons an expert", f"{widths} in {figures['layers']} layers"),
        ("inertia", f"{figures['ratio']:.4f} of a random balanced split's"),
        ("duality gap", f"at most {figures['largest_gap']:.3g} a layer (0: proven optimal)"),
        ("reached a fixpoint", f"{figures['converged']} of {figures['layers']} layers"),
    ]


def second_rows(folder: Path) -> list[tuple[str, str]]:
    """Wall-clock time of the steps of launch/demo."""
    files = [folder / step for step in STEPS]
    return [(file.name, f"{float(file.read_text()):.1f} s") for file in files if file.exists()]


def print_block(title: str, rows: list[tuple[str, str]]) -> None:
    print(title)
    for name, value in rows:
        print(f"  {name:<22}{value}")


def main() -> None:
    dense, map_file, moe, comparison, seconds = map(Path, sys.argv[1:6])
    result = json.loads(comparison.read_text(encoding="utf-8"))
    print_block("Size on disk", size_rows(dense, map_file, moe))
    print_block("Experts", quality_rows(layer_figures(map_file)))
    print_block(
        f"Parameters a token uses, and perplexity (LICENSE, {result['text_tokens']} tokens, fp32)",
        parameter_rows(dense, moe, result["perplexity"], result["num_experts"]),
    )
    print_block("Seconds", second_rows(seconds))
    print(f"Greedy text, all experts on, against the dense model: {result['agreement']}")
    print(WHY_SPARSE_IS_POOR)


if __name__ == "__main__":
    main()
