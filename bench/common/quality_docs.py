#!/usr/bin/env python3
"""Puts results of the benchmarks of quality into docs/quality.md, as tables and plots:

    bench/common/quality_docs.py                 every table anew, from the result that it names
    bench/common/quality_docs.py RESULT.json     the table of this kind, from now on from this result

A table stands between `<!-- KIND: bench/results/….json -->` and `<!-- end -->`, where KIND is quality,
methods or recover; plots are docs/quality.png and docs/methods.png."""

import argparse
import json
import pathlib
import re
import statistics

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/quality.md"
MARKED = re.compile(r"<!-- (quality|methods|recover): (\S+) -->\n.*?<!-- end -->", re.DOTALL)
SHARES = (0.75, 0.5, 0.25)  # of the neurons run for a token
# Texts that came later and were looked at once, after all choices: no part of the mean, which so stays the
# same in every table.
UNTOUCHED = ("nations",)


def percent(share, digits=0):
    return f"{share:.{digits}%}".replace("%", " %")


def mean_and_spread(values):
    """"1.30 ± 1 %": the mean, and the standard deviation over seeds if there are several."""
    text = f"{statistics.mean(values):.2f}"
    if len(values) > 1:
        text += f" ± {percent(statistics.stdev(values) / statistics.mean(values))}"
    return text


def times_dense(row):
    """Geometric mean over the texts but UNTOUCHED."""
    return statistics.geometric_mean(text["times_dense"] for name, text in row["texts"].items()
                                     if name not in UNTOUCHED)


def texts_of(row):
    """Names of the texts, UNTOUCHED last."""
    return sorted(row["texts"], key=lambda name: (name in UNTOUCHED, name))


def ratio_on(group, name):
    """Mean over seeds on one text, or nothing where it was not measured."""
    ratios = [row["texts"][name]["times_dense"] for row in group if name in row["texts"]]
    return f"{statistics.mean(ratios):.2f}" if ratios else ""


def grouped(rows, key):
    groups = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def lines_of(head, body):
    rows = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def cost_text(costs):
    """Seconds, seconds of CPU and the load they were taken under, of one step over seeds."""
    if not costs:
        return ""
    middle = sorted(costs, key=lambda cost: cost["seconds"])[len(costs) // 2]
    return (f"{middle['seconds']:.0f} s ({middle['cpu_seconds']:.0f} s CPU, load {middle['load']:.0f},"
            f" {middle['megabytes']} MB)")


def quality_table(rows):
    dense = next(row for row in rows if row["configuration"] == "dense")
    texts = texts_of(dense)
    body = [["dense (perplexity)", percent(1), "1", "",
             *(f"{dense['texts'][name]['perplexity']:.2f}" for name in texts), "", ""]]
    models = [row for row in rows if "active" in row]
    for (configuration, active), group in grouped(
            models, lambda row: (row["configuration"], row["active"])).items():
        took = [row["took"] for row in group if "took" in row]
        step = "recover" if took and "recover" in took[0] else "calibrate"
        body.append([configuration, percent(active),
                     mean_and_spread(list(map(times_dense, group))), str(len(group)),
                     *(ratio_on(group, name) for name in texts),
                     percent(statistics.mean(row["agreement"] for row in group)),
                     cost_text([costs[step] for costs in took])])
    return lines_of(["calibration", "active", "times dense", "seeds", *texts, "same next token",
                     "calibrate, or recover"], body)


def methods_table(rows):
    models = [row for row in rows if "router" in row]
    record = cost_text([row["took"] for row in rows if row.get("step") == "record" and "took" in row])
    body = []
    for (method, router), group in grouped(
            models, lambda row: (row["method"], row["router"])).items():
        by_share = grouped(group, lambda row: row["active"])
        seeds = {row["seed"] for row in group}
        body.append([method, router, str(len(seeds)),
                     *(mean_and_spread(list(map(times_dense, by_share[share])))
                       for share in SHARES),
                     *(cost_text([row["took"][step] for row in group if "took" in row])
                       for step in ("split", "route"))])
    table = lines_of(["split", "router", "seeds", *map(percent, SHARES), "split", "route"], body)
    return table + (f"\n\nThe recordings of a seed took {record}." if record else "")


def recover_table(rows):
    dense = next(row for row in rows if row["configuration"] == "dense")
    texts = texts_of(dense)
    words = {"before": "calibrated", "recovered": "recovered", "control": "control: calibrated on as much"
             " text"}
    body = []
    for configuration, title in words.items():
        group = [row for row in rows if row["configuration"] == configuration]
        if configuration == "recovered":
            steps = [{**row.get("training", {}), **row.get("took", {})}["steps"] for row in group]
            title += f", {statistics.median(steps):.0f} steps"
        body.append([title, mean_and_spread(list(map(times_dense, group))),
                     *(ratio_on(group, name) for name in texts)])
    return lines_of(["model", "times dense", *texts], body)


TABLES = {"quality": quality_table, "methods": methods_table, "recover": recover_table}


def plot_lines(path, lines, style_of=lambda name: {}):
    """lines: name -> {active share: values over seeds}; means with standard deviations. style_of(name):
    colour and so on, where Matplotlib's ten colours in turn do not do."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.2))
    for name, by_share in lines.items():
        shares = sorted(by_share)
        spread = [statistics.stdev(by_share[s]) if len(by_share[s]) > 1 else 0 for s in shares]
        axes.errorbar([100 * share for share in shares],
                      [statistics.mean(by_share[share]) for share in shares], spread, marker="o",
                      markersize=4, linewidth=1, capsize=3, label=name, **style_of(name))
    axes.axhline(1, color="black", linewidth=0.8, linestyle=":")
    axes.set_yscale("log")
    axes.set_xlabel("neurons that run for a token [%]")
    axes.set_ylabel("perplexity, times dense")
    axes.grid(True, which="both", alpha=0.25)
    axes.legend(fontsize=7, ncols=2)
    figure.tight_layout()
    figure.savefig(path, dpi=90, metadata={"Software": None})
    plt.close(figure)


def quality_plot(rows):
    lines = {}
    for row in rows:
        if "active" in row:
            line = lines.setdefault(row["configuration"], {})
            line.setdefault(row["active"], []).append(times_dense(row))
    plot_lines(ROOT / "docs/quality.png", lines)


def methods_plot(rows):
    lines = {}
    for row in rows:
        if row.get("router") in ("centroid", "ridge"):
            line = lines.setdefault(f"{row['method']}, {row['router']}", {})
            line.setdefault(row["active"], []).append(times_dense(row))
    methods = list(dict.fromkeys(name.split(", ")[0] for name in lines))

    def style_of(name):
        method, router = name.split(", ")
        return {"color": f"C{methods.index(method)}", "linestyle": "-" if router == "ridge" else ":"}

    plot_lines(ROOT / "docs/methods.png", lines, style_of)


PLOTS = {"quality": quality_plot, "methods": methods_plot}


def kind_of(path):
    for kind in TABLES:
        if path.stem.endswith(f"-{kind}"):
            return kind
    raise SystemExit(f"{path}: its name should end in -{'.json, -'.join(TABLES)}.json")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="*", type=pathlib.Path, metavar="RESULT.json")
    chosen = {kind_of(path): path.resolve().relative_to(ROOT)
              for path in parser.parse_args().results}

    def renewed(match):
        kind, path = match[1], chosen.get(match[1], match[2])
        rows = [json.loads(line) for line in (ROOT / path).read_text().splitlines()]
        if kind in PLOTS:
            PLOTS[kind](rows)
        return f"<!-- {kind}: {path} -->\n{TABLES[kind](rows)}\n<!-- end -->"

    PAGE.write_text(MARKED.sub(renewed, PAGE.read_text()))


if __name__ == "__main__":
    main()
