#!/usr/bin/env python3
"""Draws dashboards as pictures, without Grafana: the panels of its JSON, in its grid, with what a Prometheus answers."""

import argparse
import io
import itertools
import json
import math
import re
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

try:
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle
    from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator
    from PIL import Image
except ImportError as missing:
    sys.exit(f"preview.py: {missing}. It draws with matplotlib: pip install matplotlib")

HELP = """
Each DASHBOARD.json becomes DIR/dashboard-NAME.png. Panels without data are drawn as "no data" and named on standard error:
some have none because nothing of that kind happened, others because a label or a scrape configuration is wrong.

What Grafana fills in is filled in here: $cluster (--cluster, or the first one that Prometheus knows), $__range, and
$__rate_interval, which depends on the scrape interval that Grafana's data source is told (15 s unless told otherwise).

Examples:
  preview.py --prometheus http://127.0.0.1:9090 --minutes 30 --output pictures
  preview.py --minutes 10 --scrape-interval 5 dashboards/settlement.json
  preview.py --minutes 20 --until 2026-05-04T13:20:00Z       what an incident looked like
"""

# Grafana's grid: 24 columns, rows of 30 pixels, 8 pixels between panels
WIDTH, COLUMNS, ROW, GAP, HEADER, DPI = 1600, 24, 38, 8, 44, 100
LEGEND_ROW, LEGEND_HEIGHT_MAX, LEGEND_WIDTH = 16, 0.42, 0.4
POINTS_MAX = 800
COLOURS = ["#3d9a3a", "#d9a400", "#3274d9", "#e0752d", "#c4162a", "#8f3bb8", "#12939a", "#b877d9", "#7f6a3f", "#6b7280"]
INK, PALE, GRID = "#24292e", "#6e7681", "#e6e8eb"
NAMED = dict(zip(["green", "yellow", "blue", "orange", "red"], COLOURS), text=INK)

# unit: what follows the number, the base of its prefixes, and the prefixes
UNITS = {
    "short": ("", 1000, ["", " K", " Mil", " Bil"]),
    "ops": (" ops/s", 1000, ["", " K", " M", " G"]),
    "bytes": ("B", 1024, [" ", " Ki", " Mi", " Gi", " Ti"]),
    "Bps": ("B/s", 1000, [" ", " k", " M", " G"]),
}
SECONDS = [(60, " min"), (1, " s"), (1e-3, " ms"), (1e-6, " µs")]


class Fault(Exception):
    """Why nothing can be drawn, told to whoever asked."""


class Prometheus:
    """Answers queries of one time range, as Grafana would ask them."""

    def __init__(self, url, begin, end, scrape_interval):
        self.url, self.begin, self.end = url.rstrip("/"), begin, end
        self.step = max(scrape_interval, math.ceil((end - begin) / POINTS_MAX))
        self.times = range(begin, end + 1, self.step)
        rate_interval = max(self.step + scrape_interval, 4 * scrape_interval)
        self.variables = {"__rate_interval": f"{rate_interval}s", "__range": f"{end - begin}s"}

    def get(self, path, **parameters):
        """The data of an answer."""
        try:
            with urlopen(f"{self.url}/api/v1/{path}?{urlencode(parameters)}", timeout=30) as answer:
                return json.load(answer)["data"]
        except HTTPError as refused:
            raise Fault(f"{self.url} answers {refused.code}: {refused.read().decode(errors='replace').strip()}") from refused
        except (OSError, ValueError, KeyError) as fault:
            raise Fault(f"no Prometheus answers at {self.url}: {fault}") from fault

    def choose(self, variable, given):
        """Gives a dashboard's variable a value: label_values(METRIC, LABEL) offers them."""
        asked = re.fullmatch(r"label_values\((\w+), *(\w+)\)", variable["query"])
        offered = self.get(f"label/{asked[2]}/values", **{"match[]": asked[1], "start": self.begin, "end": self.end})
        if not offered or given not in (None, *offered):
            raise Fault(f"no {variable['name']} {given or ''} at {self.url}: {asked[1]} has {offered or 'no value in this time'}")
        self.variables[variable["name"]] = given or sorted(offered)[0]

    def series(self, panel):
        """Name, times and values of each line of a panel."""
        found = []
        for target in panel["targets"]:
            query = re.sub(r"\$(\w+)", lambda name: self.variables.get(name[1], name[0]), target["expr"])
            answer = self.get("query_range", query=query, start=self.begin, end=self.end, step=self.step)
            for one in answer["result"]:
                name = re.sub(r"{{ *(\w+) *}}", lambda label: one["metric"].get(label[1], ""), target["legendFormat"])
                told = {at: float(value) for at, value in one["values"]}
                values = [told.get(at, math.nan) for at in self.times]
                if any(math.isfinite(value) for value in values):
                    found.append((name, self.times, values))
        return found


def shown(value, defaults):
    """A value in its panel's unit, with the decimals that the panel asks for, or in three significant digits."""
    unit = defaults["unit"]
    if unit == "percentunit" and "decimals" in defaults:
        return f"{value * 100:.{defaults['decimals']}f} %"
    if unit == "percentunit":
        return f"{digits(value * 100)} %"
    if unit == "s":
        scale, name = next(((size, name) for size, name in SECONDS if abs(value) >= size), (1, " s"))
        return digits(value / scale) + name
    suffix, base, prefixes = UNITS.get(unit, (f" {unit}", 1000, ["", " K", " M", " G"]))
    power = min(int(math.log(abs(value), base) + 1e-9), len(prefixes) - 1) if abs(value) >= 1 else 0
    return digits(value / base**power) + prefixes[power] + suffix


def digits(value):
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def calculated(values, calculation):
    finite = [value for value in values if math.isfinite(value)]
    return {"lastNotNull": finite[-1], "max": max(finite), "min": min(finite), "mean": sum(finite) / len(finite)}[calculation]


def look(value, defaults):
    """The text and colour that value mappings give a value, otherwise its figure and what thresholds say."""
    for mapping in defaults.get("mappings", []):
        if option := mapping["options"].get(digits(value)):
            return option["text"], NAMED[option["color"]]
    steps = defaults.get("thresholds", {}).get("steps", [])
    reached = [step["color"] for step in steps if step["value"] is None or value >= step["value"]]
    return shown(value, defaults), NAMED[reached[-1]] if reached else INK


class Canvas:
    """A dashboard's picture, in Grafana's pixels from the upper left."""

    def __init__(self, title, rows):
        self.height = HEADER + rows * ROW + GAP
        self.figure = Figure(figsize=(WIDTH / DPI, self.height / DPI), dpi=DPI, facecolor="#f4f5f5")
        self.text(GAP + 4, HEADER / 2 + 3, title, size=12, weight="bold")

    def text(self, x, y, text, size=8, colour=INK, **more):
        return self.figure.text(x / WIDTH, 1 - y / self.height, text, size=size, color=colour, va="center", **more)

    def box(self, x, y, width, height, colour, edge="none"):
        place = (x / WIDTH, 1 - (y + height) / self.height)
        size = (width / WIDTH, height / self.height)
        self.figure.add_artist(Rectangle(place, *size, facecolor=colour, edgecolor=edge, lw=0.8, zorder=-1))

    def axes(self, x, y, width, height):
        return self.figure.add_axes((x / WIDTH, 1 - (y + height) / self.height, width / WIDTH, height / self.height))

    def save(self, path):
        """Writes a PNG of 256 colours, which is a third as large."""
        drawn = io.BytesIO()
        self.figure.savefig(drawn)
        Image.open(drawn).convert("RGB").quantize(256, kmeans=2, dither=Image.Dither.NONE).save(path, optimize=True)


def draw_panel(canvas, panel, series):
    """Draws one panel where the dashboard's grid has it."""
    place = panel["gridPos"]
    column = (WIDTH - GAP) / COLUMNS
    x, y = GAP + place["x"] * column, HEADER + place["y"] * ROW
    width, height = place["w"] * column - GAP, place["h"] * ROW - GAP
    canvas.box(x, y, width, height, "white", edge="#d8dadd")
    canvas.text(x + 9, y + 15, panel["title"] + ("  (i)" if panel.get("description") else ""), size=9, weight="bold")
    area = (x + 9, y + 30, width - 18, height - 38)
    if series:
        DRAWN[panel["type"]](canvas, panel, series, area)
    else:
        canvas.text(x + width / 2, y + height / 2, "no data", size=12, colour=PALE, ha="center")


def draw_stat(canvas, panel, series, area):
    """The newest value in large, above its course."""
    x, y, width, height = area
    defaults, options = panel["fieldConfig"]["defaults"], panel["options"]
    part = width / len(series)
    for number, (_, times, values) in enumerate(series):
        value = calculated(values, options["reduceOptions"]["calcs"][0])
        text, colour = look(value, defaults)
        colour = INK if options["colorMode"] == "none" else colour
        if options.get("graphMode", "area") == "area":
            axes = canvas.axes(x + number * part, y + height * 0.6, part, height * 0.4)
            axes.fill_between(times, values, color=COLOURS[2] if colour == INK else colour, alpha=0.25, lw=0)
            axes.set(xlim=(times[0], times[-1]), ylim=(defaults.get("min"), None))
            axes.axis("off")
        middle = x + (number + 0.5) * part
        canvas.text(middle, y + height * 0.38, text, size=24, colour=colour, ha="center", weight="bold")


def draw_timeseries(canvas, panel, series, area):
    """Lines, filled and stacked as told, with a legend of the values that the panel asks for."""
    x, y, width, height = area
    defaults = panel["fieldConfig"]["defaults"]
    custom, times = defaults["custom"], series[0][1]
    right, below = draw_legend(canvas, panel, series, area)
    axes = canvas.axes(x + 62, y + 4, width - 92 - right, height - 26 - below)
    stacked = custom["stacking"]["mode"] == "normal"
    floor = [0.0] * len(times)
    for (_, _, values), colour in zip(series, itertools.cycle(COLOURS)):
        top = [under + (value if math.isfinite(value) else 0) for under, value in zip(floor, values)] if stacked else values
        padded = [math.nan, *top, math.nan]
        alone = [at for at in range(len(top)) if math.isnan(padded[at]) and math.isnan(padded[at + 2])]
        axes.plot(times, top, color=colour, lw=1.2 * custom.get("lineWidth", 1), marker=".", ms=4, markevery=alone)
        axes.fill_between(times, floor, top, color=colour, alpha=custom["fillOpacity"] / 100, lw=0)
        floor = top if stacked else floor
    low, high = defaults.get("min", axes.get_ylim()[0]), axes.get_ylim()[1]
    high = high if any(value > 0 for _, _, values in series for value in values) else low + 1
    if custom.get("thresholdsStyle", {}).get("mode") == "dashed":
        for step in defaults["thresholds"]["steps"][1:]:
            axes.axhline(step["value"], color=NAMED[step["color"]], lw=1, ls="--")
    axes.set_ylim(low, high)
    whole = MultipleLocator(2.0 ** math.ceil(math.log2((high - low) / 5)))
    axes.yaxis.set_major_locator(whole if defaults["unit"] == "bytes" else MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value, defaults)))
    dress(axes, times)


def draw_states(canvas, panel, series, area):
    """A bar for each line, in the colour of the value that it has."""
    x, y, width, height = area
    axes = canvas.axes(x + 110, y + 4, width - 140, height - 50)
    states = {}
    for row, (_, times, values) in enumerate(series):
        for at, value in zip(times, values):
            if math.isfinite(value):
                text, colour = states.setdefault(value, look(value, panel["fieldConfig"]["defaults"]))
                axes.barh(row, times.step, left=at, height=0.8, align="center", color=colour, lw=0)
    axes.set(ylim=(len(series) - 0.5, -0.5), yticks=range(len(series)), yticklabels=[name for name, _, _ in series])
    dress(axes, series[0][1])
    for number, (text, colour) in enumerate(states.values()):
        canvas.box(x + 9 + number * 90, y + height - 15, 12, 4, colour)
        canvas.text(x + 26 + number * 90, y + height - 13, text)


def dress(axes, times):
    """Times along the lower edge, and a grid."""
    axes.set_xlim(times[0], times[-1])
    axes.xaxis.set_major_locator(MaxNLocator(int(axes.get_position().width * WIDTH / 100), steps=[1, 1.2, 1.5, 2, 3, 6, 10]))
    form = "%H:%M:%S" if times[-1] - times[0] < 1200 else "%H:%M"
    axes.xaxis.set_major_formatter(FuncFormatter(lambda at, _: datetime.fromtimestamp(at, timezone.utc).strftime(form)))
    axes.tick_params(labelsize=7.5, colors=PALE, length=0)
    axes.grid(color=GRID, lw=0.8)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)


def draw_legend(canvas, panel, series, area):
    """Draws as many rows as have room, for Grafana scrolls through the rest; returns what it takes of the width and height."""
    x, y, width, height = area
    legend = panel["options"]["legend"]
    beside = legend["placement"] == "right"
    room = int(height * (0.95 if beside else LEGEND_HEIGHT_MAX) / LEGEND_ROW) - 1
    rows = len(series) if len(series) <= room else room - 1
    high = LEGEND_ROW * (min(len(series), room) + 1.4)
    left = x + width * (1 - LEGEND_WIDTH) if beside else x
    top = y + LEGEND_ROW if beside else y + height - high + LEGEND_ROW
    columns = [(name, x + width - 8 - (70 if beside else 90) * place) for place, name in enumerate(reversed(legend["calcs"]))]
    for name, edge in columns:
        canvas.text(edge, top - 4, {"lastNotNull": "Last *"}.get(name, name.title()), 7, PALE, ha="right")
    for row, ((name, _, values), colour) in enumerate(zip(series[:rows], itertools.cycle(COLOURS))):
        middle = top + LEGEND_ROW * (row + 0.7)
        canvas.box(left + 4, middle - 2, 12, 4, colour)
        canvas.text(left + 22, middle, name, size=7.5)
        for calculation, edge in columns:
            value = shown(calculated(values, calculation), panel["fieldConfig"]["defaults"])
            canvas.text(edge, middle, value, size=7.5, ha="right")
    if rows < len(series):
        canvas.text(left + 22, top + LEGEND_ROW * (rows + 0.7), f"and {len(series) - rows} more", 7.5, PALE, style="italic")
    return (width * LEGEND_WIDTH, 0) if beside else (0, high)


DRAWN = {"stat": draw_stat, "timeseries": draw_timeseries, "state-timeline": draw_states}


def draw_dashboard(path, prometheus, cluster, output):
    """Draws one dashboard, and returns the titles of panels without data."""
    dashboard = json.loads(path.read_text())
    for variable in dashboard["templating"]["list"]:
        prometheus.choose(variable, cluster)
    panels = dashboard["panels"]
    unknown = sorted({panel["type"] for panel in panels} - DRAWN.keys())
    if unknown:
        raise Fault(f"{path}: panels of type {', '.join(unknown)} cannot be drawn, only {', '.join(DRAWN)}")
    until = datetime.fromtimestamp(prometheus.end, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
    title = f"{dashboard['title']}      cluster {prometheus.variables['cluster']},  until {until}"
    canvas = Canvas(title, max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels))
    empty = []
    for panel in panels:
        series = prometheus.series(panel)
        draw_panel(canvas, panel, series)
        empty += [] if series else [panel["title"]]
    canvas.save(output / f"dashboard-{path.stem}.png")
    return empty


def arguments():
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="preview.py", description=__doc__, epilog=HELP, formatter_class=raw)
    own = sorted((Path(__file__).parent / "dashboards").glob("*.json"))
    what = "dashboards [default: all that lie beside this program]"
    parser.add_argument("dashboards", metavar="DASHBOARD.json", nargs="*", type=Path, default=own, help=what)
    url = "http://127.0.0.1:9090"
    parser.add_argument("--prometheus", metavar="URL", default=url, help="a running Prometheus [default: %(default)s]")
    parser.add_argument("--minutes", type=float, default=30, help="how far back the pictures go [default: %(default)s]")
    parser.add_argument("--until", metavar="TIME", type=datetime.fromisoformat, help="where they end [default: now]")
    parser.add_argument("--cluster", metavar="NAME", help="the cluster, where Prometheus knows several")
    interval = "as Grafana's data source has it [default: %(default)s]"
    parser.add_argument("--scrape-interval", metavar="SECONDS", type=int, default=15, help=interval)
    parser.add_argument("--output", metavar="DIR", type=Path, default=Path(), help="where the pictures go [default: here]")
    return parser.parse_args()


def main():
    given = arguments()
    try:
        end = int(given.until.timestamp() if given.until else time.time())
        given.output.mkdir(parents=True, exist_ok=True)
        for path in given.dashboards:
            prometheus = Prometheus(given.prometheus, end - int(given.minutes * 60), end, given.scrape_interval)
            for title in draw_dashboard(path, prometheus, given.cluster, given.output):
                print(f"{path.name}: no data: {title}", file=sys.stderr)
    except (Fault, OSError, json.JSONDecodeError) as fault:
        sys.exit(f"preview.py: {fault}")


if __name__ == "__main__":
    main()
