"""Counts test cases and prints "passed failed skipped" as three numbers; failures go to stderr.

usage: count_cases.py ctest BUILD_FOLDER JUNIT.xml    one ctest run, by case where gtest wrote a file
       count_cases.py pytest JUNIT.xml

A program that crashes, or whose result file is missing or unreadable, counts as failed.
"""

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Count:
    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def add(self, other: "Count") -> None:
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped


def one_failure(what: str) -> Count:
    print(f"FAILED: {what}", file=sys.stderr)
    return Count(failed=1)


def count_case(case: ElementTree.Element, where: str) -> Count:
    name = f"{where}: {case.get('classname', '')}.{case.get('name', '')}"
    if case.find("failure") is not None or case.find("error") is not None:
        return one_failure(name)
    # gtest marks disabled cases by status and skipped ones by an element; ctest and pytest by either.
    left_out = case.get("status") in ("notrun", "disabled") or case.get("result") == "skipped"
    if left_out or case.find("skipped") is not None:
        return Count(skipped=1)
    return Count(passed=1)


def count_file(file: Path) -> Count:
    try:
        cases = list(ElementTree.parse(file).iter("testcase"))
    except (OSError, ElementTree.ParseError) as error:
        return one_failure(f"{file.name}: no result ({error}); did the program crash?")
    total = Count()
    for case in cases:
        total.add(count_case(case, file.stem))
    return total


def gtest_files(build: Path) -> dict[str, Path]:
    """For each ctest entry that is a gtest program: the file its cases go to."""
    listing = subprocess.run(
        ["ctest", "--test-dir", str(build), "--show-only=json-v1"],
        capture_output=True,
        text=True,
        check=True,
    )
    prefix = "--gtest_output=xml:"
    return {
        test["name"]: Path(argument.removeprefix(prefix))
        for test in json.loads(listing.stdout)["tests"]
        for argument in test.get("command", [])
        if argument.startswith(prefix)
    }


def count_ctest(build: Path, junit: Path) -> Count:
    files = gtest_files(build)
    total = Count()
    try:
        entries = list(ElementTree.parse(junit).iter("testcase"))
    except (OSError, ElementTree.ParseError) as error:
        return one_failure(f"ctest in {build} left no result ({error})")
    if not entries:
        return one_failure(f"ctest in {build} ran nothing")
    for entry in entries:
        name = entry.get("name", "")
        if name not in files:
            total.add(count_case(entry, "ctest"))
            continue
        by_case = count_file(files[name])
        # A sanitizer's finding at exit, or a rank other than the one that writes the file.
        if entry.find("failure") is not None and by_case.failed == 0:
            by_case.add(one_failure(f"{name}: every case passed, but the program failed"))
        total.add(by_case)
    return total


def main() -> None:
    kind = sys.argv[1]
    if kind == "ctest":
        count = count_ctest(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        count = count_file(Path(sys.argv[2]))
    print(count.passed, count.failed, count.skipped)


if __name__ == "__main__":
    main()
