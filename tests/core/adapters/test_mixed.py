"""Many adapters in one batch change their own rows only, as each does alone."""

import pytest
import torch
from torch import Tensor, nn

from core.adapters import lora_groups
from core.adapters.adapted import AdaptedModel
from core.adapters.lora_groups import LONGEST_GATHERED
from core.adapters.mixed import MixedModel, Site
from core.adapters.segments import Segments
from core.catalog.families import FAMILIES as KNOWN
from core.catalog.families import family_of
from core.spec.strategy import BottleneckSpec, Ia3Spec, LoraSpec, StrategySpec
from core.strategies.attach import attach
from tests.core.tiny import tiny_model

SPECS: dict[str, StrategySpec] = {
    "rank 4": LoraSpec(rank=4, alpha=8),
    "rank 4 too": LoraSpec(rank=4, alpha=2),
    "rank 12": LoraSpec(rank=12, use_rslora=True, target_modules="attention"),
    "ranks": LoraSpec(
        rank=2, rank_pattern={"layers.1.mlp.up_proj": 6}, target_modules="all-linear"
    ),
    "query only": LoraSpec(rank=3, target_modules=("q_proj",)),
    "dora": LoraSpec(rank=4, use_dora=True),
    "head": LoraSpec(rank=4, modules_to_save=("lm_head",)),
    "table": LoraSpec(rank=4, modules_to_save=("embed_tokens",)),
    "houlsby": BottleneckSpec(reduction_factor=4, placement="houlsby"),
    "ia3": Ia3Spec(),
    "ia3 too": Ia3Spec(),
    "pfeiffer": BottleneckSpec(reduction_factor=8, placement="pfeiffer"),
}
FAMILIES = ("llama", "gpt2", "phi3", "gemma2")
DTYPES = {"fp32": (torch.float32, 1e-5), "bf16": (torch.bfloat16, 0.08)}


def adapters_of(model: nn.Module) -> dict[str, AdaptedModel]:
    """Attach every spec to the same model, with weights that change something, and take it off."""
    made = {}
    torch.manual_seed(0)
    for name, spec in SPECS.items():
        if not fits(model, spec):
            continue
        adapted = attach(model, spec, None, prepack=False)
        adapted.remove()
        for parameter in adapted.parameters:
            parameter.data += 0.05 * torch.randn_like(parameter)
        made[name] = adapted
    return made


def fits(model: nn.Module, spec: StrategySpec) -> bool:
    names = [path.rpartition(".")[2] for path, _ in model.named_modules()]
    if not isinstance(spec, LoraSpec):
        return True
    wanted = [*spec.modules_to_save]
    wanted += spec.target_modules if isinstance(spec.target_modules, tuple) else []
    wanted += [path.rpartition(".")[2] for path in spec.rank_pattern]
    return all(name in names for name in wanted)


@torch.inference_mode()
def logits(model: nn.Module, tokens: Tensor) -> Tensor:
    return model(tokens[:, None], use_cache=False).logits[:, -1].float()


@pytest.fixture(params=FAMILIES)
def family(request) -> str:
    return request.param


@pytest.fixture(params=DTYPES, ids=str)
def model(family, request):
    dtype, _ = DTYPES[request.param]
    return tiny_model(family).to(dtype).eval()


def test_rows_of_a_mixed_batch_are_those_of_each_adapter_alone(model):
    """Every row is a text of one token; both ways of running them give the same."""
    tolerance = dict(DTYPES.values())[model.dtype]
    adapters = adapters_of(model)
    tokens = torch.arange(10, 10 + 2 * (len(adapters) + 1))
    names = [None, *adapters]
    expected = []
    for row, name in enumerate(names):
        if name is not None:
            adapters[name].install()
        expected.append(logits(model, tokens[2 * row : 2 * row + 2]))
        if name is not None:
            adapters[name].remove()
    mixed = MixedModel(model)
    for name, adapted in adapters.items():
        with mixed.bare():
            pass
        mixed.add(name, adapted)
    segments = Segments(tuple(names), (2,) * len(names))
    for together in (False, True):
        with mixed.running(segments, together=together):
            found = logits(model, tokens)
        torch.testing.assert_close(found, torch.cat(expected), atol=tolerance, rtol=tolerance)
    with mixed.running(Segments((None,), (2,))):
        torch.testing.assert_close(logits(model, tokens[:2]), expected[0])
    assert not torch.allclose(expected[0], expected[1], atol=tolerance)


def test_adapters_come_and_go_while_others_stay():
    model = tiny_model("llama").eval()
    adapters = adapters_of(model)
    loras = [name for name in adapters if name in ("rank 4", "rank 4 too", "query only", "ranks")]
    tokens = torch.arange(20, 20 + len(loras))
    mixed = MixedModel(model)
    for name in loras:
        mixed.add(name, adapters[name])
    whole = run(mixed, loras, tokens)
    mixed.discard(loras[1])
    rest = [0, 2, 3]
    found = run(mixed, [loras[row] for row in rest], tokens[rest])
    torch.testing.assert_close(found, whole[rest])
    mixed.add(loras[1], adapters[loras[1]])
    torch.testing.assert_close(run(mixed, loras[::-1], tokens.flip(0)), whole.flip(0))


def test_many_adapters_pass_through_the_slots_and_each_stays_itself():
    """More than there are slots at first, in changing company and of changing length."""
    model = tiny_model("llama").eval()
    torch.manual_seed(1)
    mixed, alone = MixedModel(model), {}
    for number in range(24):
        with mixed.bare():
            adapted = attach(model, LoraSpec(rank=2 + number % 7), None, prepack=False)
            adapted.remove()
        for parameter in adapted.parameters:
            parameter.data += 0.1 * torch.randn_like(parameter)
        mixed.add(str(number), adapted)
    layers = [each for slots in mixed._slots.values() for each in slots.layers.values()]
    assert not any(each.a_CIR.requires_grad or each.b_CRO.requires_grad for each in layers)
    tokens = torch.arange(40, 40 + LONGEST_GATHERED + 2)
    for number in range(24):
        alone[str(number)] = run(mixed, [str(number)], tokens, len(tokens), together=False)
    draw = torch.Generator().manual_seed(2)
    for _ in range(40):
        company = torch.randperm(24, generator=draw)[
            : 1 + int(torch.randint(12, (), generator=draw))
        ]
        length = 1 + int(torch.randint(len(tokens), (), generator=draw))
        names = [str(int(number)) for number in company]
        found = run(mixed, names, tokens[:length].repeat(len(names)), length)
        expected = torch.cat([alone[name][:length] for name in names])
        torch.testing.assert_close(found, expected, atol=3e-5, rtol=1e-5)


def test_long_segments_of_equal_or_similar_length_are_taken_together():
    model = tiny_model("llama").eval()
    adapters = adapters_of(model)
    names = ["rank 4", "rank 4 too", "query only", "ranks"]
    mixed = MixedModel(model)
    for name in names:
        mixed.add(name, adapters[name])
    similar = Segments(tuple(names), (36, 40, 27, 48))  # 27 is too short to be padded to 48
    equal = Segments((names[0], *names), (35, 40, 40, 40, 34))
    for segments, together in (similar, {0, 1, 3}), (equal, {1, 2, 3}):
        tokens = torch.arange(40, 40 + sum(segments.lengths)) % 90
        with mixed.running(segments, together=False):
            expected = logits(model, tokens)
        with mixed.running(segments):
            found = logits(model, tokens)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        groups = [rows.segments for rows in mixed._lora_rows(segments, together=True)]
        assert sorted(groups, key=len)[-1] == together
        assert sorted(each for group in groups for each in group) == list(
            range(len(segments.lengths))
        )


def test_both_ways_of_taking_short_segments_together_give_the_same(monkeypatch):
    """Rows that pick their slots, as on a CPU, and segments side by side, as elsewhere."""
    model = tiny_model("llama").eval()
    adapters = adapters_of(model)
    mixed = MixedModel(model)
    for name in ("rank 4", "rank 12", "query only", "rank 4 too", "dora"):
        mixed.add(name, adapters[name])
    segments = Segments(
        ("rank 4", None, "rank 12", "query only", "dora", "rank 4 too"), (2, 1, 1, 3, 2, 1)
    )
    tokens = torch.arange(20, 30)
    with mixed.running(segments):
        picking = logits(model, tokens)
    monkeypatch.setattr(lora_groups, "LONGEST_GATHERED", 0)
    mixed._plans.clear()
    with mixed.running(segments):
        side_by_side = logits(model, tokens)
    torch.testing.assert_close(picking, side_by_side, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", [name for name, family in KNOWN.items() if family.same_input])
def test_layers_that_are_said_to_read_the_same_are_called_with_one_tensor(name):
    model = tiny_model(name).eval()
    inputs: dict[str, Tensor] = {}
    for path, module in model.named_modules():
        if isinstance(module, nn.Linear):
            module.register_forward_pre_hook(
                lambda _, args, path=path: inputs.__setitem__(path, args[0])
            )
    logits(model, torch.arange(10, 12))
    groups: dict[tuple[str, str], list[Tensor]] = {}
    for path, x in inputs.items():
        parent, _, layer = path.rpartition(".")
        for names in family_of(name).same_input:
            if layer in names:
                groups.setdefault((parent, names[0]), []).append(x)
    assert len(groups) == 2 * model.config.num_hidden_layers
    assert all(len(group) > 1 for group in groups.values())
    assert all(x is group[0] for group in groups.values() for x in group)


def test_an_adapter_runs_through_its_own_layers_only_and_nothing_is_kept():
    """Others of its rank have more layers, and share a table with it."""
    model = tiny_model("llama").eval()
    adapters = adapters_of(model)
    mixed = MixedModel(model)
    for name in ("rank 4", "query only"):
        mixed.add(name, adapters[name])
    tokens = torch.arange(20, 40)
    for length in (1, 20):
        run(mixed, ["query only"], tokens[:length], length)
        _, plan = mixed._plans[True]
        changed = {path for path, changes in plan.items() if changes is not None}
        assert changed == set(adapters["query only"].replaced)
        inputs = [shared for path in changed for shared, _, _ in plan[path].low_rank]
        assert inputs and all(shared._x is None for shared in inputs)


@pytest.mark.parametrize("prepack", [True, False])
def test_a_step_that_fails_leaves_nothing_behind(prepack):
    model = tiny_model("llama").eval()
    mixed = MixedModel(model, prepack=prepack)
    mixed.add("rank 4", adapters_of(tiny_model("llama"))["rank 4"])
    tokens = torch.arange(20, 22)
    expected = run(mixed, ["rank 4"], tokens, 2)
    hook = model.model.layers[0].self_attn.k_proj.register_forward_hook(fail)
    with pytest.raises(MemoryError):
        run(mixed, ["rank 4"], tokens, 2)
    assert not mixed._plans, "which hold what layers have read"
    assert all(joined._x is None and not joined._products for joined in mixed._joined)
    assert bool(mixed._joined) is prepack
    hook.remove()
    torch.testing.assert_close(run(mixed, ["rank 4"], tokens, 2), expected)


def test_an_adapter_for_which_there_is_no_memory_can_be_loaded_later(monkeypatch):
    model = tiny_model("llama").eval()
    mixed = MixedModel(model)
    adapted = adapters_of(model)["rank 4"]
    tokens = torch.arange(20, 22)
    made = []

    def few(tensor: Tensor, *shape: object, **options: object) -> Tensor:
        made.append(shape)
        if len(made) == 4:  # A and B of one layer, A of the next one
            raise MemoryError
        return zeros(tensor, *shape, **options)

    zeros = Tensor.new_zeros
    monkeypatch.setattr(Tensor, "new_zeros", few)
    with pytest.raises(MemoryError):
        mixed.add("rank 4", adapted)
    mixed.add("rank 4", adapted)
    [slots] = mixed._slots.values()
    for table in {layer.table for layer in slots.layers.values()}:
        assert len(table.paths) == len(set(table.paths)) == table.a_CIMR.shape[2]
    found = run(mixed, ["rank 4"], tokens, 2)
    other = MixedModel(tiny_model("llama").eval())
    other.add("rank 4", adapters_of(other.model)["rank 4"])
    torch.testing.assert_close(found, run(other, ["rank 4"], tokens, 2))


def fail(*_: object) -> None:
    raise MemoryError


def run(
    mixed: MixedModel, names: list[str], tokens: Tensor, length: int = 1, together: bool = True
) -> Tensor:
    segments = Segments(tuple(names), (length,) * len(names))
    with mixed.running(segments, together=together):
        return logits(mixed.model, tokens)


def test_the_model_is_as_it_was_inside_bare():
    model = tiny_model("llama").eval()
    before = [type(module) for module in model.modules()]
    mixed = MixedModel(model)
    mixed.add("a", adapters_of(model)["houlsby"])
    assert any(isinstance(module, Site) for module in model.modules())
    with mixed.bare():
        assert [type(module) for module in model.modules()] == before
    assert any(isinstance(module, Site) for module in model.modules())
    assert model.model.layers[0].mlp.down_proj.weight is not None, "a site is what it stands around"
