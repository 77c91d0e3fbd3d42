"""What the documents say is there: links lead somewhere, options exist, messages are still printed."""

import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
# Options of other programs that the documents name.
FOREIGN = {
    "--bind-to", "--cpus-per-task", "--export", "--gpus-per-node", "--hostfile", "--mpi", "--no-python", "--nodes",
    "--nproc-per-node", "--ntasks", "--ntasks-per-node", "--reflink", "--time",
}


def sources(*patterns):
    files = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "--", *patterns], cwd=ROOT,
                           capture_output=True, text=True, check=True).stdout.split()
    return "\n".join((ROOT / file).read_text() for file in files if (ROOT / file).exists())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    local = [link.split("#")[0] for link in links if not re.match(r"[a-z]+:|#", link)]
    assert [link for link in local if not (page.parent / link).exists()] == []


def known_options():
    ours = sources("src/cli/*.cpp", "python/moefy/*.py", "bench/*", "launch/*", ".ci/*")
    named = set(re.findall(r"--[a-z][a-z0-9-]+", ours))
    tables = re.findall(r'\{\s*"([a-z][a-z0-9-]+)",', sources("src/cli/*.cpp"))
    return named | {f"--{name}" for name in tables} | {"--help", "--version", "--list"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_options_exist(page):
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", page.read_text()))
    assert sorted(named - known_options() - FOREIGN) == []


def printed_texts():
    """All source text with neighbouring literals joined, and blanks as one."""
    text = sources("src/*", "kernels/*", "python/*.py", "launch/*", "include/*")
    text = re.sub(r'"\s*f?"', "", text)
    return re.sub(r"\s+", " ", text)


def fragments(message):
    """The parts of a documented message that do not stand for something else."""
    stands_for_something = (r"…|\([^)]*\)|'[^']*'|\[[^]]*\]|\b[A-Z]\b|\b[A-Z]+(?:\.refit)?\.[a-z0-9]+\b|"
                            r"\w*\d[\w.]*|\br\b|MPI_X|--|[;,]")
    parts = re.split(stands_for_something, message)
    return [part.strip(" ,:;[]") for part in parts if len(part.strip(" ,:;[]")) > 7]


def test_messages_of_the_troubleshooting_page_are_still_printed():
    page = (ROOT / "docs/troubleshooting.md").read_text()
    headlines = re.findall(r"^\*\*(.+?)\*\*", page, re.MULTILINE)
    messages = [message for line in headlines for message in re.findall(r"`([^`]+)`", line)]
    assert len(messages) > 30
    printed = printed_texts()
    lost = [message for message in messages if (parts := fragments(message)) and
            not all(part in printed for part in parts)]
    assert lost == []
