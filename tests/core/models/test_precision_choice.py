"""Which number format `auto` takes, how often that is measured, and what is said of it."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from core.models import precision, precision_choice
from core.models.precision import sixteen_bits_of
from core.models.precision_choice import PrecisionChooser
from core.models.precision_store import identity_of

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def native_bf16(monkeypatch):
    monkeypatch.setattr(precision, "_cpu_flags", lambda: {"avx512_bf16"})


@pytest.fixture
def measured(monkeypatch):
    """The ids of the bases that are measured from here on."""
    bases = []
    measure = precision_choice.measure_cost

    def counted(base, *rest):
        bases.append(base.id)
        return measure(base, *rest)

    monkeypatch.setattr(precision_choice, "measure_cost", counted)
    return bases


@pytest.fixture
def calm(base_of):
    return base_of("llama")


@pytest.fixture
def wild(base_of):
    """A base that bf16 spoils."""
    return base_of("llama", seed=1, initializer_range=1.0)


def test_auto_takes_16_bits_where_they_cost_little_and_fp32_where_they_cost_much(calm, wild):
    chooser = PrecisionChooser(CPU)
    good, bad = chooser.choose(calm, "auto"), chooser.choose(wild, "auto")
    assert (good.choice, good.reason, good.warning) == ("bf16", "measured", None)
    assert (bad.choice, bad.reason, bad.warning) == ("fp32", "measured", None)
    assert good.cost.kl_nats < 1e-3 < bad.cost.kl_nats
    assert good.remark.startswith("bf16 costs this base 0.0") and good.remark.endswith(
        "nat per token"
    )


def test_without_room_for_fp32_it_is_16_bits_with_a_warning(calm, wild, tmp_path, measured):
    PrecisionChooser(CPU, tmp_path).choose(wild, "auto")
    small = PrecisionChooser(CPU, tmp_path, fits=lambda fp32_bytes: False)
    known, unknown = small.choose(wild, "auto"), small.choose(calm, "auto")
    assert (known.choice, known.reason) == ("bf16", "memory")
    assert "nat per token" in known.warning and "does not fit" in known.warning
    assert (unknown.choice, unknown.reason, unknown.cost) == ("bf16", "memory", None)
    assert "is unknown" in unknown.warning
    assert measured == [wild.id]


def test_what_was_chosen_for_want_of_free_memory_does_not_last(
    wild, tmp_path, measured, monkeypatch
):
    chooser = PrecisionChooser(CPU, tmp_path)
    monkeypatch.setattr(precision_choice, "free_bytes", lambda device: 1000)
    busy = chooser.choose(wild, "auto")
    assert (busy.choice, busy.reason, busy.cost, busy.is_lasting) == ("bf16", "busy", None, False)
    assert "too little free memory" in busy.warning and measured == []
    monkeypatch.undo()
    monkeypatch.setattr(precision, "_cpu_flags", lambda: {"avx512_bf16"})
    quiet = chooser.choose(wild, "auto")
    assert (quiet.choice, quiet.reason, quiet.is_lasting) == ("fp32", "measured", True)
    monkeypatch.setattr(precision_choice, "free_bytes", lambda device: 1000)
    assert chooser.choose(wild, "auto") == quiet, "what is measured needs no memory"


def test_what_the_whole_memory_has_no_room_for_lasts(wild):
    chosen = PrecisionChooser(CPU, fits=lambda fp32_bytes: False).choose(wild, "auto")
    assert (chosen.reason, chosen.is_lasting) == ("memory", True)


def test_fp32_weights_are_counted_before_anything_is_measured(calm, measured):
    asked = []
    PrecisionChooser(CPU, fits=asked.append).choose(calm, "auto")
    model = AutoModelForCausalLM.from_pretrained(calm.source)
    assert asked == [4 * model.num_parameters()] and measured == []


def test_what_was_asked_for_is_obeyed_with_a_warning_where_it_costs_much(calm, wild, tmp_path):
    chooser = PrecisionChooser(CPU, tmp_path)
    for asked in ("bf16", "fp16", "fp32"):
        chosen = chooser.choose(wild, asked)
        assert (chosen.choice, chosen.reason) == (asked, "set")
    assert "precision fp32 avoids this" in chooser.choose(wild, "bf16").warning
    assert chooser.choose(calm, "bf16").warning is None
    assert chooser.choose(wild, "fp32").warning is None


def test_what_was_asked_for_is_not_measured_where_nothing_is_kept(wild, measured):
    assert PrecisionChooser(CPU).choose(wild, "bf16").cost is None
    assert measured == []


def test_a_quantized_base_and_a_device_without_16_bits_are_not_measured(
    wild, measured, monkeypatch, tmp_path
):
    quantized = wild.model_copy(update={"quantization": "nf4"})
    chosen = PrecisionChooser(CPU, tmp_path).choose(quantized, "auto")
    assert (chosen.choice, chosen.reason, chosen.warning) == ("bf16", "quantized", None)
    monkeypatch.setattr(precision, "_cpu_flags", lambda: {"avx2"})
    chosen = PrecisionChooser(CPU, tmp_path).choose(wild, "auto")
    assert (chosen.choice, chosen.reason) == ("fp32", "not native")
    assert measured == []


@pytest.mark.parametrize(("native", "format_"), [(True, "bf16"), (False, "fp16")])
def test_a_gpu_without_bf16_weighs_fp16(monkeypatch, native, format_):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    assert sixteen_bits_of(torch.device("cuda")) == format_


def test_a_base_is_measured_once_on_a_machine(calm, tmp_path, measured):
    folder = tmp_path / "kept"
    first = PrecisionChooser(CPU, folder).choose(calm, "auto")
    assert PrecisionChooser(CPU, folder).choose(calm, "auto") == first
    renamed = calm.model_copy(update={"id": "another-name"})
    assert PrecisionChooser(CPU, folder).choose(renamed, "auto") == first
    assert measured == [calm.id]
    assert [path.suffix for path in folder.iterdir()] == [".json"], "nothing half-written is left"


def test_other_weights_in_the_same_folder_are_another_base(calm, tmp_path, measured):
    chooser, before = PrecisionChooser(CPU, tmp_path / "kept"), identity_of(calm)
    chooser.choose(calm, "auto")
    model = AutoModelForCausalLM.from_pretrained(calm.source)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight *= 1.01
    model.save_pretrained(calm.source)
    assert identity_of(calm) != before
    chooser.choose(calm, "auto")
    assert len(measured) == 2


def test_a_file_that_cannot_be_read_is_measured_and_written_again(calm, tmp_path, measured):
    folder = tmp_path / "kept"
    first = PrecisionChooser(CPU, folder).choose(calm, "auto")
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:20])
    assert PrecisionChooser(CPU, folder).choose(calm, "auto") == first
    assert path.read_bytes() == whole and len(measured) == 2


def test_a_disk_that_refuses_stops_nobody(calm, tmp_path):
    (tmp_path / "file").write_text("")
    chosen = PrecisionChooser(CPU, tmp_path / "file" / "kept").choose(calm, "auto")
    assert chosen.reason == "measured"


def test_a_measurement_that_fails_stops_nobody(calm, monkeypatch):
    def broken(*_):
        raise RuntimeError("no kernel for that")

    monkeypatch.setattr(precision_choice, "measure_cost", broken)
    chosen = PrecisionChooser(CPU).choose(calm, "auto")
    assert (chosen.choice, chosen.reason, chosen.is_lasting) == ("bf16", "unmeasured", False)
    assert "could not be measured" in chosen.warning
