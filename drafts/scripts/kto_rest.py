def sub(p, *pairs):
    s=open(p).read()
    for a,b in pairs:
        assert a in s, (p,a)
        s=s.replace(a,b,1)
    open(p,'w').write(s)
s=open('docs/strategies.md').read()
s=s.replace('pretraining, dpo, orpo, simpo |','pretraining, dpo, orpo, simpo, kto |')
open('docs/strategies.md','w').write(s)
sub('docs/training.md',('''| classification | `classification` |''','''| kto | `unpaired-preference` | an answer | weight · (1 − σ(β · (reward − z))), of a bad one with the sign turned round | the reward is on its side of z |
| classification | `classification` |'''),('''- **Classification** trains''','''- **KTO** learns from answers one by one. Its reference is that of DPO. z is what the model gives any answer: the mean reward, over the
  rows of a step, of each prompt with the answer to another one (that of the nearest row before it with another prompt), 0 at least.
  That costs one more pass without gradients over answers of the same length. An evaluation has a z of its own, over its rows.
- **Classification** trains'''))
sub('docs/api.md',('''| preferences, with the method `simpo` (ours) | decoder | SimPO | `generation` |
''','''| preferences, with the method `simpo` (ours) | decoder | SimPO | `generation` |
| rated answers, with the method `kto` (ours) | decoder | KTO | `generation` |
'''),('''{"beta": 2.5, "gamma": 1.2}}}}
''','''{"beta": 2.5, "gamma": 1.2}}}}
{"model": "tunesmith/tiny", "training_file": "file-…",
 "method": {"type": "kto", "kto": {"hyperparameters": {"beta": 0.1, "desirable_weight": 1.3}}}}
'''))
sub('docs/training.md',('DPO with TRL, bottleneck','DPO, ORPO, SimPO and KTO with TRL, bottleneck'))
sub('tests/matrix/run.py',('''    "simpo": SimpoSpec(),
''','''    "simpo": SimpoSpec(),
    "kto": KtoSpec(beta=0.5),
'''),('    DpoSpec,\n','    DpoSpec,\n    KtoSpec,\n'),('''        case _:
            return {
                "messages"''','''        case _, "kto":
            return {"prompt": f"say {word}", "completion": f" {word}!", "label": index % 2 == 0}
        case _:
            return {
                "messages"'''))
sub('tests/core/objectives/test_choose.py',('''    assert chosen(dpo) ==''','''    kto = KtoSpec(undesirable_weight=1.5)
    expected = Kto(chat_tokenizer, 0.1, 1.0, 1.5, 99, Reference(continues=False))
    assert chosen(kto, training=short) == expected
    assert chosen(dpo) =='''),('    DpoSpec,\n','    DpoSpec,\n    KtoSpec,\n'),('from core.objectives.orpo','from core.objectives.kto import Kto\nfrom core.objectives.orpo'))
sub('tests/api/test_objectives.py',('''        (LABELLED, Hyperparameters(), ClassificationSpec''','''        (report("unpaired-preference"), KtoHyperparameters(), KtoSpec()),
        (
            report("unpaired-preference"),
            KtoHyperparameters(beta=0.2, undesirable_weight=1.5),
            KtoSpec(beta=0.2, undesirable_weight=1.5),
        ),
        (LABELLED, Hyperparameters(), ClassificationSpec'''),('''        (report("preference"), None, Hyperparameters(), "method.type", "'dpo'"),
''','''        (report("preference"), None, Hyperparameters(), "method.type", "'dpo', 'orpo' or 'simpo'"),
        (report("preference"), None, KtoHyperparameters(), "method.type", "'label' of true"),
        (report("unpaired-preference"), None, Hyperparameters(), "method.type", "method 'kto'"),
'''),('    DpoSpec,\n','    DpoSpec,\n    KtoSpec,\n'),('    Hyperparameters,\n','    Hyperparameters,\n    KtoHyperparameters,\n'))
sub('tests/end_to_end/orders.py',('''    "pretraining": Order(''','''    "kto": Order(
        "rated.csv",
        {"type": "lora", "rank": 4},
        method={"type": "kto", "kto": {"hyperparameters": {"undesirable_weight": 1.5}}},
    ),
    "pretraining": Order('''),('''        "texts.jsonl": _write_texts,
''','''        "rated.csv": _write_rated,
        "texts.jsonl": _write_texts,
'''),('''def _write_texts(''','''def _write_rated(path: Path) -> None:
    rows = [(f"say {word}", word * 2, str(index % 2 == 0)) for index, word in enumerate(WORDS)]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("prompt", "completion", "label"), *rows])


def _write_texts('''))
