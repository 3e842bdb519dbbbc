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
    # Of a model, the run that measured the most paths.
    size = {run: sum(row["run_id"] == run for row in rows) for run in {row["run_id"] for row in rows}}
    rows.sort(key=lambda row: -size[row["run_id"]])
    models = list(dict.fromkeys(row["model"] for row in rows))
    figure, panels = plt.subplots(1, len(models), figsize=(3.6 * len(models), 3.8), layout="constrained")
    for panel, model in zip(panels, models):
        seen = set()
        for row in (row for row in rows if row["model"] == model):
            label = f"{row['path']} {row['precision']}"
            if label in seen:  # a path that was measured again, beside another precision
                continue
            seen.add(label)
            # The log axis runs over what is left: 1 in 2, 1 in 100, 1 in 10 000.
            xs = [1 / (1 - share / 100) for share in SHARES.values()]
            style = "--" if row["precision"] == "tf32" else "-"
            panel.plot(xs, [row[key] for key in SHARES], style, color=COLORS[row["path"]], marker="o", ms=3, label=label)
        panel.set(title=model, xscale="log", yscale="log", xlabel="percentile")
        panel.set_xticks([1 / (1 - share / 100) for share in SHARES.values()], [f"{share:g}" for share in SHARES.values()])
        panel.minorticks_off()
        ticks = [10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000]
        low, high = panel.get_ylim()
        panel.set_yticks([tick for tick in ticks if low <= tick <= high], [f"{tick}" for tick in ticks if low <= tick <= high])
        panel.grid(alpha=0.3)
        panel.legend(fontsize=7)
    panels[0].set_ylabel("µs, host to host")
    figure.suptitle(f"{rows[0]['gpu']}, TensorRT {rows[0]['tensorrt']}, batch 1, closed loop (virtual machine)", fontsize=10)
    figure.savefig(record.with_suffix(".png"), dpi=110)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
