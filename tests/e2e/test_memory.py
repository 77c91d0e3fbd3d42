"""Bounded memory: what plan predicts, and what stays in bounds however many layers there are."""

import pytest

from conftest import write_llama


def peak(moefy, model, *options):
    return moefy.json_lines("split", model, "-o", "map.h5", "--force", "--quiet", "--threads", 1, *options)[-1][
        "peak_memory"
    ]


@pytest.fixture(scope="module")
def large_layers(tmp_path_factory):
    return write_llama(tmp_path_factory.mktemp("large") / "model", layers=2, hidden=1024, ffn=8192)


@pytest.mark.parametrize("options", [[], ["--weights", "concat"], ["--weights", "down"]])
def test_plan_predicts_the_peak_within_a_quarter(moefy, large_layers, options):
    plan = moefy.json_lines("plan", large_layers, "--experts", 32, "--threads", 1, *options)[0]

    measured = peak(moefy, large_layers, "--experts", 32, *options)

    assert plan["peak_memory"] == pytest.approx(measured, rel=0.25)


def test_plan_knows_what_sending_costs(moefy, large_layers):
    plan = moefy.json_lines("plan", large_layers, "--experts", 32, "--threads", 1)[0]

    measured = peak(moefy, large_layers, "--experts", 32, "--feed", "coordinator")

    assert plan["peak_memory_if_sent"] == pytest.approx(measured, rel=0.25)


def test_peak_is_within_the_promise(moefy, large_layers):
    clustered = 8192 * 1024 * 4

    measured = peak(moefy, large_layers, "--experts", 32)

    assert measured <= 2 * clustered + 150_000_000


def test_peak_does_not_grow_with_the_number_of_layers(moefy, tmp_path):
    few = write_llama(tmp_path / "few", layers=2, hidden=256, ffn=4096)
    many = write_llama(tmp_path / "many", layers=8, hidden=256, ffn=4096)

    assert peak(moefy, many, "--experts", 16) <= 1.1 * peak(moefy, few, "--experts", 16)
