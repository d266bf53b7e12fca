#!/usr/bin/env python3
"""Draws the panels of deploy/grafana/etcd-edge.json with the data of a Prometheus server.

Usage: draw-dashboard.py PROMETHEUS_URL OUT.png [SECONDS]

Needs matplotlib. The picture only resembles Grafana: it shows the data of each query. Exits with 1 if
a query has no data. scripts/draw-dashboard.sh runs the servers and clients that this script needs.
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


def fetch(prometheus, query, begin, end):
    """Yields labels, times in seconds before the end, and values of each series of a query."""
    query = query.replace("$__rate_interval", "15s").replace("$job", ".*").replace("$instance", ".*")
    query = urllib.parse.urlencode({"query": query, "start": begin, "end": end, "step": STEP})
    with urllib.request.urlopen(f"{prometheus}/api/v1/query_range?{query}") as response:
        for series in json.load(response)["data"]["result"]:
            times = [at - end for at, _ in series["values"]]
            yield series["metric"], times, [float(value) for _, value in series["values"]]


def legend(text, labels):
    """Returns the legend of a series, with `{{label}}` replaced by the value of the label."""
    for name, value in labels.items():
        text = text.replace("{{" + name + "}}", value.removeprefix("http://"))
    return text


def format_value(value, unit):
    """Returns a value with its unit, similar to Grafana."""
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


def draw(axes, panel, results):
    """Draws one panel from pairs of a query and its series."""
    unit = panel["fieldConfig"]["defaults"]["unit"]
    axes.set_title(panel["title"], fontsize=7, loc="left", color="#333")
    last = []
    for target, series in results:
        for labels, times, values in series:
            name = legend(target["legendFormat"], labels)
            last.append((name, values[-1]))
            if panel["type"] == "timeseries":
                axes.plot(times, values, linewidth=0.8, label=name)
    if panel["type"] == "stat":
        axes.axis("off")
        text = "   ".join(format_value(value, unit) for _, value in last if not math.isnan(value))
        axes.text(0.5, 0.4, text, ha="center", va="center", fontsize=15, color="#1a7f37")
        return
    # Leave space for the legend, and show a constant line away from the border.
    axes.set_ylim(0, axes.get_ylim()[1] * 1.3)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format_value(value, unit)))
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
    empty = []
    for panel in panels:
        at = panel["gridPos"]
        place = [at["x"] / 24, 1 - (at["y"] + at["h"]) / rows, at["w"] / 24, at["h"] / rows]
        if panel["type"] == "row":
            figure.text(0.01, place[1] + 0.25 / rows, panel["title"], fontsize=9, weight="bold")
            continue
        results = []
        for target in panel["targets"]:
            series = list(fetch(prometheus, target["expr"], end - seconds, end))
            results.append((target, series))
            if not series:
                empty.append(f'{panel["title"]}: {target["expr"]}')
        left, low, wide, high = place
        inner = [left + 0.035, low + 1.2 / rows, wide - 0.045, high - 2.4 / rows]
        draw(figure.add_axes(inner), panel, results)
    figure.savefig(out, dpi=100, facecolor="white")
    for query in empty:
        print(f"no data: {query}", file=sys.stderr)
    sys.exit(1 if empty else 0)


main()
