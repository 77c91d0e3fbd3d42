#!/usr/bin/env python3
"""Prints the goals that results of benchmarks tell of, met or not, and what was not measured.

    bench/common/print_goals.py FILE… -- NAME…

FILE: one JSON document, or a line each; NAME: a benchmark without a result."""

import json
import pathlib
import sys


def values_of(text):
    try:
        return [json.loads(text)]
    except ValueError:
        return [json.loads(line) for line in text.splitlines()]


def figures_in(value, place=""):
    """(place, goal or what was not measured) of a result, at any depth."""
    if isinstance(value, list):
        for item in value:
            yield from figures_in(item, place)
    elif isinstance(value, dict):
        place = value.get("shape") or value.get("data") or place
        if value.get("type") == "not measured" or ("figure" in value and "met" in value):
            yield place, value
        for item in value.values():
            yield from figures_in(item, place)


def line_of(place, figure):
    if "met" not in figure:
        return f"not measured  {figure['what']}: {figure['reason']}"
    bound = f"at most {figure['at_most']}" if "at_most" in figure else f"at least {figure['at_least']}"
    verdict = "met" if figure["met"] else "not met"
    return f"{verdict:12}  {figure['figure']} ({place}): {figure['value']:.4g}, {bound}"


def main():
    at = sys.argv.index("--")
    lines = [line_of(place, figure) for file in sys.argv[1:at]
             for value in values_of(pathlib.Path(file).read_text()) for place, figure in figures_in(value)]
    lines += [f"not measured  {name}" for name in sys.argv[at + 1:]]
    print("\n".join(lines or ["these benchmarks have none"]))


if __name__ == "__main__":
    main()
