"""The loss plot of a run."""

from pathlib import Path

from core.artifacts.metrics import StepMetrics


def draw_loss(path: Path, curve: tuple[StepMetrics, ...]) -> None:
    """Plot training and validation loss by step as a PNG; equal curves give equal bytes.

    Imports Matplotlib on the first call and uses only its object interface, without global state.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(7.0, 4.0), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    train = [(entry.step, entry.train_loss) for entry in curve if entry.train_loss is not None]
    valid = [(entry.step, entry.valid_loss) for entry in curve if entry.valid_loss is not None]
    if train:
        # A line without markers would not show a single step.
        marker = "o" if len(train) == 1 else ""
        axes.plot(
            *zip(*train, strict=True), color="#3b6ea5", lw=1.4, marker=marker, label="training"
        )
    if valid:
        axes.plot(
            *zip(*valid, strict=True), color="#c8553d", lw=1.4, marker="o", label="validation"
        )
    if train or valid:
        axes.legend(frameon=False)
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("loss (nats per labelled token)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(color="#dddddd", lw=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Software": None})
