"""pyproject.toml agrees with the tree: what `pip install .` would build, install and require."""

import ast
import pathlib
import re
import sys

import pytest

tomllib = pytest.importorskip("tomllib")
ROOT = pathlib.Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
OWN = {"_moefy", "moefy"}
# Imported under another name than the one they are installed by, or only by what names them.
OPTIONAL = {"lm_eval": "lm-eval", "matplotlib": "matplotlib"}


def name_of(requirement):
    return re.match(r"[A-Za-z0-9_-]+", requirement)[0]


def imported_packages():
    for path in (ROOT / "python/moefy").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from (name.name.split(".")[0] for name in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                yield node.module.split(".")[0]


def test_every_imported_package_is_required():
    required = {name_of(text) for text in PROJECT["project"]["dependencies"]}
    optional = {name_of(text) for texts in PROJECT["project"]["optional-dependencies"].values()
                for text in texts}
    others = set(imported_packages()) - set(sys.stdlib_module_names) - OWN
    assert others - set(OPTIONAL) == required
    assert {OPTIONAL[name] for name in others & set(OPTIONAL)} == optional


def test_the_version_is_that_of_the_program():
    setting = PROJECT["tool"]["scikit-build"]["metadata"]["version"]
    found = re.search(setting["regex"], (ROOT / setting["input"]).read_text())
    assert found and re.fullmatch(r"\d+\.\d+\.\d+", found["value"])


def test_targets_and_components_exist():
    settings = PROJECT["tool"]["scikit-build"]
    native = (ROOT / "python/native/CMakeLists.txt").read_text()
    for target in settings["build"]["targets"]:
        assert f"nanobind_add_module({target} " in native
    for component in settings["install"]["components"]:
        assert re.search(rf"install\(TARGETS \w+ COMPONENT {component} ", native)
    for folder in settings["wheel"]["packages"]:
        assert (ROOT / folder / "__init__.py").exists()
    options = (ROOT / "CMakeLists.txt").read_text()
    for name in settings["cmake"]["define"]:
        assert f"option({name} " in options


def test_requirements_of_the_environment_satisfy_the_package():
    pinned = dict(re.findall(r"^([\w-]+)==([\d.]+)$",
                             (ROOT / "launch/requirements.txt").read_text(), re.MULTILINE))
    for text in PROJECT["project"]["dependencies"]:
        name, least = re.fullmatch(r"([\w-]+)>=([\d.]+)", text).groups()
        assert [*map(int, pinned[name].split("."))] >= [*map(int, least.split("."))], text
