"""What the benchmarks of quality share: commands with what they took, texts, models, and rows of
`moefy evaluate` that a stopped run finds again."""

import json
import os
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
MOEFY = ROOT / "launch/moefy"


def say(text):
    print(text, file=sys.stderr, flush=True)


def cost_of(*command):
    """Runs a command, which must succeed: seconds, seconds of CPU, peak memory in megabytes, and how
    many other programs wanted the CPUs when it began (the load of the machine)."""
    load = os.getloadavg()[0]
    begin = time.monotonic()
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL,
                               stderr=subprocess.PIPE, text=True)
    complaint = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}:\n{complaint}")
    return {"seconds": round(time.monotonic() - begin, 1),
            "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
            "megabytes": usage.ru_maxrss // 1024, "load": round(load, 1)}


def dense_model():
    """The dense checkpoint of launch/demo, made if it is not there."""
    model = ROOT / "demo/model"
    if not model.exists():
        cost_of(sys.executable, ROOT / "launch/demo_steps/export_model.py", model)
    return model


def texts_in(work):
    """The folder of calibration and evaluation texts, made if it is not there."""
    texts = work / "texts"
    if not texts.exists():
        cost_of(sys.executable, ROOT / "bench/texts/from_debian.py", work / "texts.unfinished")
        (work / "texts.unfinished").rename(texts)
    return texts


def calibration_texts(work):
    return sorted((texts_in(work) / "calibration").glob("*.txt"))


def place_of(work, name):
    return work / "done" / f"{name}.json"


def is_kept(work, name):
    """Whether kept() has a value of this name."""
    return place_of(work, name).exists()


def kept(work, name, make):
    """make()'s JSON value, from the file `name` of `work` once it is there."""
    path = place_of(work, name)
    if not path.exists():
        value = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".unfinished")
        part.write_text(json.dumps(value))
        part.rename(path)
        say(f"{name}: {json.dumps(value)[:120]}")
    return json.loads(path.read_text())


def measurement_of(name, sequences):
    """Under which name kept() has what `moefy evaluate` found of a model."""
    return f"evaluated-{sequences}-{name}"


def evaluated(model, work, names, sequences, top_ks=""):
    """name of each converted directory of `work` -> its rows of `moefy evaluate`; also of "dense".
    Only those are measured that were not before."""
    missing = [name for name in ("dense", *names)
               if not is_kept(work, measurement_of(name, sequences))]
    if missing:
        command = [MOEFY, "evaluate", model, *(work / name for name in missing if name != "dense"),
                   "--text", *sorted((texts_in(work) / "evaluation").glob("*.txt")), "--sequences",
                   sequences, "--json", "--quiet", *(("--top-k", top_ks) if top_ks else ())]
        output = subprocess.run([str(word) for word in command], check=True, capture_output=True,
                                text=True).stdout
        rows = [json.loads(line) for line in output.splitlines()]
        for name in missing:
            kept(work, measurement_of(name, sequences), lambda: [row for row in rows if row["model"] == name])
    return {name: kept(work, measurement_of(name, sequences), lambda: []) for name in ("dense", *names)}
