#!/usr/bin/env python3
"""Draws the panels of deploy/grafana/etcd-edge.json with what a Prometheus answers to their queries.

Usage: draw-dashboard.py PROMETHEUS_URL OUT.png [SECONDS]

Needs matplotlib. This is no Grafana: it shows that each query has an answer, and what it looks like.
scripts/draw-dashboard.sh runs everything that it needs.
"""

import json
import math
import pathlib
import sys
import time
import urllib.parse
import urllib.request

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter, MaxNLocator

DASHBOARD = pathlib.Path(__file__).parent.parent / "deploy/grafana/etcd-edge.json"
STEP = 5


def ask(prometheus, query, begin, end):
    """Every series of a query, as labels, times and values."""
    query = query.replace("$__rate_interval", "15s").replace("$job", ".*").replace("$instance", ".*")
    asked = urllib.parse.urlencode({"query": query, "start": begin, "end": end, "step": STEP})
    with urllib.request.urlopen(f"{prometheus}/api/v1/query_range?{asked}") as answer:
        for series in json.load(answer)["data"]["result"]:
            times = [at - end for at, _ in series["values"]]
            yield series["metric"], times, [float(value) for _, value in series["values"]]


def legend(text, labels):
    """The legend of a series: `{{label}}` stands for its value."""
    for name, value in labels.items():
        text = text.replace("{{" + name + "}}", value.removeprefix("http://"))
    return text


def shown(value, unit):
    """A value as Grafana writes those of its unit, nearly."""
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    if unit == "s":
        for size, name in ((86400, "d"), (3600, "h"), (1, "s"), (1e-3, "ms"), (1e-6, "µs")):
            if abs(value) >= size:
                return f"{value / size:.3g} {name}"
    suffix = {"reqps": "/s", "Bps": "B/s", "bytes": "B"}.get(unit, "")
    for size, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g} {name}{suffix}"
    return f"{value:.3g}{suffix and ' '}{suffix}"


def draw(axes, panel, answers):
    """One panel."""
    unit = panel["fieldConfig"]["defaults"]["unit"]
    axes.set_title(panel["title"], fontsize=7, loc="left", color="#333")
    last = []
    for target, series in answers:
        for labels, times, values in series:
            name = legend(target["legendFormat"], labels)
            last.append((name, values[-1]))
            if panel["type"] == "timeseries":
                axes.plot(times, values, linewidth=0.8, label=name)
    if panel["type"] == "stat":
        axes.axis("off")
        text = "   ".join(shown(value, unit) for _, value in last if not math.isnan(value))
        axes.text(0.5, 0.4, text, ha="center", va="center", fontsize=15, color="#1a7f37")
        return
    # Room for the legend, and for a line that does not move.
    axes.set_ylim(0, axes.get_ylim()[1] * 1.3)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value, unit)))
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f} s"))
    axes.tick_params(labelsize=5, length=2, color="#999")
    axes.grid(color="#eee", linewidth=0.5)
    for side in axes.spines.values():
        side.set_color("#ccc")
    if last:
        axes.legend(fontsize=4.5, ncol=2, loc="upper left", frameon=False)


def main():
    prometheus, out = sys.argv[1].rstrip("/"), sys.argv[2]
    seconds = int(sys.argv[3]) if len(sys.argv) > 3 else 120
    end = time.time()
    panels = json.loads(DASHBOARD.read_text())["panels"]
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    figure = plt.figure(figsize=(13, rows * 0.2))
    dark = []
    for panel in panels:
        at = panel["gridPos"]
        place = [at["x"] / 24, 1 - (at["y"] + at["h"]) / rows, at["w"] / 24, at["h"] / rows]
        if panel["type"] == "row":
            figure.text(0.01, place[1] + 0.25 / rows, panel["title"], fontsize=9, weight="bold")
            continue
        answers = []
        for target in panel["targets"]:
            series = list(ask(prometheus, target["expr"], end - seconds, end))
            answers.append((target, series))
            if not series:
                dark.append(f'{panel["title"]}: {target["expr"]}')
        left, low, wide, high = place
        inner = [left + 0.035, low + 1.2 / rows, wide - 0.045, high - 2.4 / rows]
        draw(figure.add_axes(inner), panel, answers)
    figure.savefig(out, dpi=100, facecolor="white")
    for query in dark:
        print(f"no data: {query}", file=sys.stderr)
    sys.exit(1 if dark else 0)


main()
