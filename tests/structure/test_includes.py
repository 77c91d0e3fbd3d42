"""The layering of docs/architecture.md, checked on every include of the tree."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]

# module -> modules it may include (beside itself)
ALLOWED = {
    "core": set(),
    "backend": {"core"},
    "comm": {"core", "backend"},
    "partition": {"core"},
    "checkpoint": {"core"},
    "model": {"core", "backend", "checkpoint"},
    "store": {"core", "partition"},
    "balance": {"core", "backend", "partition"},
    "router": {"core", "backend", "model", "partition", "store"},
    "split": {"core", "backend", "model", "partition", "store", "balance", "router"},
    "convert": {"core", "backend", "checkpoint", "model", "partition", "store"},
    "schedule": {"core", "comm"},
    "report": {"core", "partition", "store"},
    "cli": {"core", "jobs"},
    "kernels": {"core", "backend"},
}
ALLOWED["jobs"] = set(ALLOWED) - {"cli", "kernels"}

# third-party header prefix -> modules that may include it
THIRD_PARTY = {
    "hdf5": {"store"},
    "H5": {"store"},
    "mpi.h": {"comm"},
    "faiss/": {"balance"},
    "omp.h": {"balance"},
    "boost/": {"cli"},
    "cblas.h": {"kernels"},
    "lapacke.h": {"kernels"},
    "spdlog/": {"core"},
    "xxhash.h": {"core"},
}
# These may stand in any source file, but in no public header.
ANYWHERE_IN_SOURCES = ("fmt/", "nlohmann/")


def module_sources():
    for folder in ("include/moefy", "src"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".hpp", ".cpp", ".inl") and path.name != "main.cpp":
                yield path.relative_to(ROOT / folder).parts[0], path
    for path in sorted((ROOT / "kernels").rglob("*")):
        if path.suffix in (".hpp", ".cpp"):
            yield "kernels", path


def includes(path):
    return re.findall(r'^\s*#\s*include\s+[<"]([^">]+)[">]', path.read_text(), re.MULTILINE)


def violations():
    for module, path in module_sources():
        public = "include" in path.relative_to(ROOT).parts[0]
        for header in includes(path):
            where = f"{path.relative_to(ROOT)} includes {header}"
            if header.startswith("moefy/"):
                other = header.split("/")[1]
                if other != module and other not in ALLOWED.get(module, set()):
                    yield where + f": {module} may not know {other}"
            for prefix, modules in THIRD_PARTY.items():
                if header.startswith(prefix) and (public or module not in modules):
                    yield where + ": not the place for this library"
            if public and header.startswith(ANYWHERE_IN_SOURCES):
                yield where + ": no third-party type in public headers"


def test_modules_include_only_what_the_architecture_allows():
    assert list(violations()) == []


def test_every_module_is_known_to_the_table():
    folders = {p.name for p in (ROOT / "src").iterdir() if p.is_dir()}
    assert folders == set(ALLOWED) - {"kernels"}


@pytest.mark.parametrize("word", ["TODO", "FIXME", "XXX"])
def test_no_unfinished_marks(word):
    pattern = re.compile(rf"\b{word}\b")
    marked = [str(p) for _, p in module_sources() if pattern.search(p.read_text())]
    assert marked == []
