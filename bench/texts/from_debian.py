#!/usr/bin/env python3
"""Makes the texts of the quality benchmark from Debian packages, one plain file a domain:

    bench/texts/from_debian.py FOLDER

FOLDER/calibration/ holds domains to calibrate with, FOLDER/evaluation/ domains that stand in no
calibration text. Packages are fetched with `apt-get download` and unpacked, not installed."""

import argparse
import ast
import gzip
import importlib.util
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "python"))
from moefy.texts import html_to_prose  # noqa: E402

PACKAGES = ("debian-handbook", "developers-reference", "bible-kjv", "bible-kjv-text", "fortunes-min",
            "dict-gcide", "jargon-text", "dict-devil", "miscfiles", "wesnoth-1.16-httt",
            "wesnoth-1.16-tsg", "anarchism", "gnucash-docs", "gimp-help-en", "freeciv-data")


def unpacked(packages, folder):
    """Unpacks Debian packages below `folder` and returns it."""
    subprocess.run(["apt-get", "download", "-qq", *packages], cwd=folder, check=True,
                   stderr=subprocess.DEVNULL)
    for package in sorted(folder.glob("*.deb")):
        subprocess.run(["dpkg", "-x", package, folder], check=True)
    return folder


def pages(folder, pattern):
    return "\n".join(html_to_prose(path.read_text(encoding="utf-8", errors="replace"))
                     for path in sorted(folder.glob(pattern)))


def gunzipped(path):
    return gzip.decompress(path.read_bytes()).decode("utf-8", errors="replace")


def flowing(text):
    """Blocks between blank lines as one line each."""
    blocks = (" ".join(block.split()) for block in re.split(r"\n\s*\n", text))
    return "\n".join(block for block in blocks if len(block) > 60)


def fortunes(usr):
    return "\n".join(flowing((usr / "share/games/fortunes" / name).read_text(errors="replace")
                             .replace("\n%\n", "\n\n")) for name in ("fortunes", "literature"))


def law(usr):
    return "\n".join(flowing(gunzipped(usr / "share/state" / name))
                     for name in ("us-constitution.gz", "us-declaration.gz"))


def code(_):
    """Five modules of Python's standard library, as they are."""
    texts = []
    for name in ("argparse", "heapq", "textwrap", "statistics", "shlex"):
        text = pathlib.Path(importlib.util.find_spec(name).origin).read_text()
        ast.parse(text)
        texts.append(text)
    return "\n".join(texts)


def bible(usr):
    """Every verse without its reference, in one flow."""
    run = subprocess.run([usr / "bin/bible", "-f", "-p", usr / "lib", "gen1:1-rev22:21"],
                         capture_output=True, text=True, check=True)
    return " ".join(line.split(" ", 1)[1] for line in run.stdout.splitlines() if " " in line)


def campaigns(usr):
    """What is said in the scenarios of two campaigns."""
    files = sorted((usr / "share/games/wesnoth/1.16/data/campaigns").glob("*/scenarios/*.cfg"))
    spoken = (re.findall(r'(?:message|story)\s*=\s*_\s*"((?:[^"]|"")*)"', path.read_text())
              for path in files)
    return "\n".join(" ".join(text.replace('""', '"').split()) for texts in spoken
                     for text in texts)


def nations(usr):
    """What a game tells of the history of its nations."""
    files = sorted((usr / "share/games/freeciv/nation").glob("*.ruleset"))
    told = (re.search(r'^legend\s*=\s*_\("((?:[^"\\]|\\.)*)"\)', path.read_text(), re.M | re.S)
            for path in files)
    legends = (text[1].replace("\\\n", "").replace("\\n", " ").replace('\\"', '"')
               for text in told if text)
    return "\n".join(" ".join(legend.split()) for legend in legends)


CALIBRATION = {
    "handbook": lambda usr: pages(usr, "share/doc/debian-handbook/html/en-US/*.html"),
    "fortunes": fortunes,
    "dictionary": lambda usr: flowing(gunzipped(usr / "share/dictd/gcide.dict.dz")[2_000_000:4_000_000]),
    "jargon": lambda usr: flowing(gunzipped(usr / "share/doc/jargon-text/jargon.txt.gz")),
    "satire": lambda usr: flowing(gunzipped(usr / "share/dictd/devil.dict.dz")),
    "law": law,
    "code": code,
}
EVALUATION = {
    "reference": lambda usr: pages(usr, "share/developers-reference/*.html"),
    "bible": bible,
    "campaigns": campaigns,
    "essays": lambda usr: pages(usr, "share/doc/anarchism/html/sec*.html"),
    "images": lambda usr: pages(usr, "share/gimp/2.0/help/en/*.html"),
    "nations": nations,
    "finance": lambda usr: pages(usr, "share/doc/gnucash-docs/gnucash-guide-en/*.html"),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    folder = parser.parse_args().folder
    with tempfile.TemporaryDirectory() as work:
        usr = unpacked(PACKAGES, pathlib.Path(work)) / "usr"
        for kind, domains in (("calibration", CALIBRATION), ("evaluation", EVALUATION)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            for name, make in domains.items():
                text = make(usr)
                if len(text) < 20_000:
                    raise SystemExit(f"{name}: only {len(text)} characters; has the package changed?")
                (folder / kind / f"{name}.txt").write_text(text + "\n")
                print(f"{kind}/{name}.txt: {len(text)} characters")


if __name__ == "__main__":
    main()
