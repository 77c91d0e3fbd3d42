"""Expert maps and reports as other programs see them: h5py, h5ls, h5dump, an HTML parser."""

import html.parser
import pathlib
import re
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest

from conftest import ROOT, helper

SHAPE = {"layers": 4, "neurons": 23, "experts": 5, "shared": 2, "hidden": 6}


@pytest.fixture(scope="module")
def map_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("map") / "map.h5"
    shape = [str(value) for value in SHAPE.values()]
    subprocess.run([helper("store/write_sample_map"), path, *shape], check=True)
    return path


def test_h5py_reads_every_attribute_as_its_own_type(map_path):
    with h5py.File(map_path, "r") as file:
        assert file.userblock_size == 512
        assert file.attrs["format"] == "moefy-expert-map"
        assert file.attrs["seed"] == 2**64 - 1
        assert isinstance(file.attrs["model_type"], str)
        assert "größe" in file["config"].asstr()[()]
        layer = file["layers/00002"]
        texts = "name kind method weights normalize activation stop_reason fingerprint".split()
        assert all(isinstance(layer.attrs[name], str) for name in texts)
        integers = (
            "layer_index num_neurons hidden_size num_experts num_shared cost_scale_log2 iterations"
            " converged"
        ).split()
        assert all(layer.attrs[name].dtype == np.int64 for name in integers)
        floats = "inertia inertia_initial inertia_random duality_gap".split()
        assert all(layer.attrs[name].dtype == np.float64 for name in floats)
        assert layer.attrs["layer_index"] == 2
        assert len(layer.attrs["fingerprint"]) == 32


def test_h5py_reads_every_array_with_its_type_and_shape(map_path):
    neurons, experts = SHAPE["neurons"], SHAPE["experts"]
    expected = {
        "labels": ("<i4", (neurons,)),
        "members": ("<i4", (neurons,)),
        "expert_offset": ("<i8", (experts + 1,)),
        "shared_offset": ("<i8", (SHAPE["shared"] + 1,)),
        "centroids": ("<f4", (experts, SHAPE["hidden"])),
        "prices": ("<f8", (experts,)),
        "router/weight": ("<f4", (experts, SHAPE["hidden"])),
        "stats/sizes": ("<i8", (experts,)),
    }
    with h5py.File(map_path, "r") as file:
        assert list(file["layers"]) == [f"{i:05}" for i in range(SHAPE["layers"])]
        for layer in file["layers"].values():
            for name, (dtype, shape) in expected.items():
                assert (layer[name].dtype.str, layer[name].shape) == (dtype, shape), name
            assert layer["router"].attrs["kind"] == "centroid"


def test_members_are_the_neurons_by_label(map_path):
    with h5py.File(map_path, "r") as file:
        for layer in file["layers"].values():
            labels, members = layer["labels"][:], layer["members"][:]
            offset = layer["expert_offset"][:]
            assert np.array_equal(np.sort(members), np.arange(SHAPE["neurons"]))
            by_label = np.concatenate(
                [np.flatnonzero(labels == label) for label in range(-1, SHAPE["experts"])]
            )
            assert np.array_equal(members, by_label)
            assert np.array_equal(np.diff(offset), np.bincount(labels[labels >= 0]))
            assert np.array_equal(np.diff(offset), layer["stats/sizes"][:])


def test_run_group_has_times_and_texts(map_path):
    with h5py.File(map_path, "r") as file:
        assert file["run"].attrs["command_line"].startswith("moefy split")
        times = file["run/times"]
        assert times["phase"].asstr()[:2].tolist() == ["read", "cluster"]
        assert times["seconds"][:2].tolist() == [0.25, 1.5]
        assert times["layer_index"].dtype == np.int64


@pytest.mark.parametrize("command", [["h5ls", "-rv"], ["h5dump", "-H"], ["h5dump", "-d", "/config"]])
def test_tools_of_hdf5_read_it(map_path, command):
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    result = subprocess.run([*command, map_path], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert "config" in result.stdout


def test_example_of_the_documentation_runs(map_path):
    page = (ROOT / "docs/how-to/read-the-map-from-python.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    result = subprocess.run(
        [sys.executable, "-c", code, map_path], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert "00003 model.layers.3.mlp inertia against random" in result.stdout


class Page(html.parser.HTMLParser):
    """Checks that elements are nested, and collects what could lead out of the page."""

    VOID = {"meta", "br", "hr", "img", "input", "link"}

    def __init__(self):
        super().__init__()
        self.open = []
        self.ids = []
        self.links = []
        self.tags = set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "action", "data", "poster", "srcset"):
                self.links.append(value)

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()


@pytest.mark.parametrize("shape", [(1, 8, 2, 0, 4), (3, 40, 7, 1, 6), (128, 1024, 512, 0, 8)])
def test_html_report_is_well_formed_and_leads_nowhere(tmp_path, shape):
    path = tmp_path / "report.html"
    program = helper("report/write_sample_report")
    title = "<b>&\"'</title>"
    subprocess.run([program, path, *map(str, shape), title], check=True)
    text = path.read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    page.close()
    assert page.open == []
    assert page.links == []
    assert "b" not in page.tags
    assert len(set(page.ids)) == len(page.ids)
    assert not re.search(r"https?://|@import|url\(", text)
    assert {"script", "style", "table", "canvas"} <= page.tags
