#!/usr/bin/env python3
"""Draws a record: latency by percentile, one panel a model, one line a path.

    python3 benches/record/plot.py benches/record/h100/2026-11-23-latency.jsonl   # writes the .png beside it

Needs matplotlib.
"""
import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

SHARES = {"p50_us": 50.0, "p95_us": 95.0, "p99_us": 99.0, "p999_us": 99.9, "p9999_us": 99.99}
COLORS = {
    "tickrt": "#0b6e4f",
    "tickrt-ahead": "#52b788",
    "trt-graph-sync": "#b5838d",
    "trt-textbook": "#6d597a",
    "ort-cuda-graph": "#e09f3e",
    "ort-cuda": "#c1666b",
    "ort-cpu": "#48639c",
}


def main(record: Path) -> None:
    rows = [json.loads(line) for line in record.read_text().splitlines()]
    rows = [row for row in rows if row["path"] in COLORS and row["idle_ms"] == 0 and row["sessions"] == 1]
    # Of a model, the first of the runs that measured the most paths.
    runs = {row["model"]: {} for row in rows}
    for row in rows:
        runs[row["model"]].setdefault(row["run_id"], []).append(row)
    width = max(3.6 * len(runs), 8)
    figure, panels = plt.subplots(1, len(runs), figsize=(width, 4.2), layout="constrained", squeeze=False)
    panels = panels[0]
    drawn = {}
    for panel, (model, of_model) in zip(panels, runs.items()):
        seen = set()
        for row in max(of_model.values(), key=len):
            # ONNX Runtime on one thread and on all of them have the same name: the first of them is on one.
            if row["path"] in seen:
                continue
            seen.add(row["path"])
            if row["path"] == "tickrt":
                panel.set_title(f"{model}, {row['precision']}")
            # The log axis runs over what is left: 1 in 2, 1 in 100, 1 in 10 000.
            xs = [1 / (1 - share / 100) for share in SHARES.values()]
            (line,) = panel.plot(xs, [row[key] for key in SHARES], color=COLORS[row["path"]], marker="o", ms=3)
            drawn.setdefault(row["path"], line)
        panel.set(xscale="log", yscale="log", xlabel="percentile")
        panel.set_xticks([1 / (1 - share / 100) for share in SHARES.values()], [f"{share:g}" for share in SHARES.values()])
        panel.minorticks_off()
        ticks = [10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000]
        low, high = panel.get_ylim()
        panel.set_yticks([tick for tick in ticks if low <= tick <= high], [f"{tick}" for tick in ticks if low <= tick <= high])
        panel.grid(alpha=0.3)
    names = [path for path in COLORS if path in drawn]
    figure.legend([drawn[name] for name in names], names, loc="outside lower center", ncols=len(names), fontsize=8)
    panels[0].set_ylabel("µs, host to host")
    figure.suptitle(f"{rows[0]['gpu']}, TensorRT {rows[0]['tensorrt']}, batch 1, closed loop (virtual machine)", fontsize=10)
    figure.savefig(record.with_suffix(".png"), dpi=110)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
