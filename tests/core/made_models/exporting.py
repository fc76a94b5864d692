"""A made model in every format that it has, except for those that need llama.cpp."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from core.catalog.exports import FORMS, require_exportable
from core.errors import InvalidRequest
from core.spec.export import ExportOptions
from core.spec.making import MadeBundle
from core.spec.tuned import TunedSpec
from tests.core.exports.exporting import Exported, export


def require_exports(found: MadeBundle, bundle: Path, out: Path) -> set[str]:
    """Export the bundle in all of its formats; return their names."""
    done = set()
    for options in formats_of(found.tuned):
        name = f"{options.format} {options.form}"
        replay = export(
            Exported(found.tuned.base, bundle),
            options,
            out / name / "files",
            found.reference.rows_only(),
        )
        assert replay.distance is not None, (name, replay.reason)
        assert replay.distance.of_parity_check
        if options.format in ("nf4", "int8"):  # random weights are sensitive to rounding
            share = replay.distance.adapter_share
            assert share is None or share == pytest.approx(1, abs=0.5), (name, replay)
        else:
            assert replay.status == "passed", (name, replay.reason)
            assert replay.distance.max_nats < 1e-3, (name, replay)
        done.add(name)
    return done


def formats_of(tuned: TunedSpec) -> Iterator[ExportOptions]:
    for format_, forms in FORMS.items():
        for form in forms if "gguf" not in format_ else ():
            options = ExportOptions(format=format_, form=form)
            try:
                require_exportable(options, tuned.strategy, tuned.task)
            except InvalidRequest:
                continue
            yield options
