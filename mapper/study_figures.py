"""Pictures of a study: utilization, speedup and energy of attention and end to end, and the Pareto front of array sides.

In: a `Study` and a folder. Out: one SVG and one PNG file for each picture. matplotlib is imported here, when it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from .study import Row, Study

COLOURS = ("#9c755f", "#f28e2b", "#edc948", "#59a14f", "#4e79a7", "#b07aa1", "#e15759", "#76b7b2")
MARKERS = "osD^v<>P"


def draw(study: Study, folder: Path) -> list[Path]:
    """Draw all pictures; the files that were written. Raises ImportError without matplotlib."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams.update({"svg.hashsalt": study.file.name, "font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    base, other = study.file.compare.base, study.file.compare.other
    pictures: list[tuple[str, str, Callable[[Row, Row], float], str | None]] = [
        ("utilization", "utilization of the 2-D array", lambda row, _: row.util_2d, None),
        ("speedup", f"attention: speedup over {other}", lambda row, than: than.latency_s / row.latency_s, other),
        ("energy", f"attention: energy, of that of {base}", lambda row, than: row.energy_pj / than.energy_pj, base),
    ]
    written = []
    for name, title, value, than in pictures:
        written += _save(_bars(study, study.attention, title, value, than), folder, name)
    if study.end_to_end:
        figure = _bars(
            study, study.end_to_end, f"end to end: speedup over {other}", lambda row, than: than.latency_s / row.latency_s, other
        )
        written += _save(figure, folder, "end_to_end")
    if study.pareto:
        written += _save(_pareto(study), folder, "pareto")
    return written


def _save(figure: Any, folder: Path, name: str) -> list[Path]:
    import matplotlib.pyplot as plt

    paths = [folder / f"{name}.svg", folder / f"{name}.png"]
    figure.savefig(paths[0], metadata={"Date": None})
    figure.savefig(paths[1], dpi=130)
    plt.close(figure)
    return paths


def _bars(study: Study, rows: tuple[Row, ...], title: str, value: Callable[[Row, Row], float], than: str | None) -> Any:
    """One panel a model; a group of bars for each length, a bar for each configuration."""
    import matplotlib.pyplot as plt

    models, lengths, configs = list(study.file.models), list(study.file.lengths), list(study.file.configs)
    by = {(row.model, row.seq_len, row.config): row for row in rows}
    figure, axes = plt.subplots(1, len(models), figsize=(3.1 * len(models), 3.2), sharey=True, squeeze=False)
    figure.subplots_adjust(left=0.05, right=0.995, bottom=0.16, top=0.82, wspace=0.06)
    width = 0.8 / len(configs)
    for axis, model in zip(axes[0], models, strict=True):
        for number, config in enumerate(configs):
            heights = [value(by[model, length, config], by[model, length, than or config]) for length in lengths]
            places = [at + (number - (len(configs) - 1) / 2) * width for at in range(len(lengths))]
            axis.bar(places, heights, width, label=config, color=COLOURS[number % len(COLOURS)])
        axis.set_title(model)
        axis.set_xticks(range(len(lengths)), lengths)
        axis.grid(axis="y", alpha=0.3)
        axis.set_axisbelow(True)
    axes[0][0].set_ylabel(title)
    figure.supxlabel("sequence length")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", ncols=len(configs), frameon=False)
    return figure


def _pareto(study: Study) -> Any:
    """Area against latency, both logarithmic, with the side at each point."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(5, 3.6))
    figure.subplots_adjust(left=0.14, right=0.95, bottom=0.15, top=0.9)
    for number, model in enumerate(dict.fromkeys(point.model for point in study.pareto)):
        points = sorted((point for point in study.pareto if point.model == model), key=lambda point: point.area_cm2)
        areas, latencies = [point.area_cm2 for point in points], [point.latency_s for point in points]
        axis.plot(areas, latencies, marker=MARKERS[number % len(MARKERS)], color=COLOURS[4 - number % 4], label=model)
        for point in points:
            axis.annotate(f"{point.side}", (point.area_cm2, point.latency_s), textcoords="offset points", xytext=(6, 5))
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel("area, cm$^2$")
    axis.set_ylabel("latency, s")
    axis.set_title("array sides")
    axis.grid(alpha=0.3)
    axis.legend(frameon=False)
    return figure
